"""`mine`: hard negatives for a prepared dataset."""

from __future__ import annotations

from pathlib import Path

from acclimate.configs import RunConfig, effective
from acclimate.data.dataset import Dataset
from acclimate.errors import DataError, UsageError
from acclimate.files import hash_folder, hash_text
from acclimate.formats.sources import resolve_model
from acclimate.formats.trained_on import write_trained_on
from acclimate.mining.mine import mine_negatives
from acclimate.mining.mined_rows import mined_work
from acclimate.mining.mining_input import mining_input
from acclimate.mining.reports import MineReport
from acclimate.models.reranker import Reranker
from acclimate.models.text_encoder import TextEncoder
from acclimate.progress import say
from acclimate.runs.opening import open_dataset
from acclimate.runs.resolve import base_of, load, load_reranker, load_whole, reranker_source, resolve
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.trained_on import reranker_trained_on, trained_on, trained_on_input


def mine(dataset: Path, out: Path, config: RunConfig) -> MineReport:
    """Mine hard negatives for every training query, and write them in three forms beside an audit.

    Negatives that the data brought stay in front of the mined ones, except those that are a positive of the same
    query, the query itself, or judged for a dev or test query. Documents that are judged for one may be mined: no
    judgement of dev or test is used.

    Args:
        dataset: a folder that `prepare` wrote.
        out: `RUN/negatives`; vectors are cached in `RUN/.work/cache`.
        config: the whole run; the `mine` section and the model count.

    Returns:
        what `out/report.json` holds: the audit's counts and `timings`.

    Raises:
        UsageError: the dataset holds labelled pairs, which have no corpus to mine.
        ModelError: the teacher or the reranker cannot be loaded.
        StorageError: there is no dataset, or `out` cannot be written.
    """
    seen = trained_on([config.mine.teacher]) | reranker_trained_on(config.mine.reranker)
    inputs = {"dataset": hash_folder(dataset), **_model_hashes(config), **trained_on_input(seen)}

    def make() -> Work[MineReport]:
        loaded = open_dataset(dataset)
        _check_minable(loaded, dataset)
        gathered = mining_input(loaded)
        teacher, reranker = _teacher(config), _reranker(config)
        cache = RunFolder(out.parent).cache
        blocks = mine_negatives(gathered, teacher, config.mine, config.seed, reranker=reranker, cache=cache)
        work = mined_work(gathered, loaded.queries, blocks, config.mine)

        def write(folder: Path) -> MineReport:
            write_trained_on(folder, seen)  # a training on these negatives inherits it
            return _announced(work.write(folder), config)

        return Work(write, work.meanwhile)

    return step("mine", out, effective(config, "mine"), inputs, make, seconds="mine_s", reads=[dataset, *config.named])


def _announced(report: MineReport, config: RunConfig) -> MineReport:
    share, wanted = report["hard_negative_share"], config.mine.effective_hard_negative_share
    count, few = config.mine.num_negatives, report["queries_with_too_few"]
    say(f"mine: {share:.0%} of the training examples have a hard negative")
    if few:
        without = report["queries_without_negatives"]
        say(f"  {few:,} of {report['queries']:,} queries have fewer than {count} negatives, {without:,} of them none")
    for name, removed in report["removed"].items():
        unit = ""
        if name == "spread_margin":
            margin, spread = report["spread_margin"], report["score_spread"]
            unit = f": those above the positive - {margin:g} of the scores' spread, {spread:.4g}"
        say(f"  {name} removed {removed:,} of {report['candidates']:,} candidates{unit}")
    if near := report["near_copies"]:
        say(f"  {near:,} documents are nearly a positive of their query (other revisions of it): none is a negative")
    for name, filled in report["filled"].items():
        if name == "range_max":
            say(f"  {filled:,} queries had too few, and got more from ranks beyond range_max, past all filters")
        else:
            say(
                f"  {filled:,} queries had none, and got their lowest-scoring candidates, past {name}, for "
                f"hard_negative_share = {wanted:g}: these may be false negatives"
            )
    for warning in report["warnings"]:
        say(f"  warning: {warning}")
    if share < wanted:
        say(f"  warning: below hard_negative_share = {wanted:g}, and there are no more candidates to fill it with")
    return report


def _model_hashes(config: RunConfig) -> dict[str, str]:
    """What the ranking depends on: the teacher's weights (and adapter), and the reranker's weights."""
    teacher, reranker = config.mine.teacher, config.mine.reranker
    if teacher is None:
        hashes = {"model": resolve_model(config.base_model, pooling=config.pooling).fingerprint}
    else:
        hashes = {"model": resolve(teacher, base=base_of(teacher, config.model)).sha256}
    if reranker is None:
        return hashes
    settings = (config.rerank.rerank_instruction, config.rerank.pair_tokens)
    return hashes | {"reranker": hash_text(reranker_source(reranker).fingerprint, *map(str, settings))}


def _check_minable(dataset: Dataset, folder: Path) -> None:
    if dataset.kind == "pairs":
        raise UsageError(
            f"{folder} holds labelled pairs, which have no corpus to mine",
            fix="Train on the pairs directly: acclimate train needs no negatives for them.",
        )
    if not dataset.examples:
        raise DataError(f"{folder} has no training examples", fix="Prepare data with a train split.")


def _teacher(config: RunConfig) -> TextEncoder:
    """The run's own model with the run's own prompts, or another model (or run, or adapter) with its own."""
    teacher = config.mine.teacher
    if teacher is None:
        return load_whole(config.base_model, **config.loading)
    return load(teacher, base=base_of(teacher, config.model), **config.machine)


def _reranker(config: RunConfig) -> Reranker | None:
    name = config.mine.reranker
    return load_reranker(name, config.rerank, device=config.device, dtype=config.reranker_dtype) if name else None
