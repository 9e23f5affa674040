"""`evaluate`: base against adapted on the test split, and on whatever guards against forgetting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from acclimate import processes
from acclimate.configs import RunConfig, effective
from acclimate.data import facts
from acclimate.data.build import build_dataset
from acclimate.data.dataset import Dataset, is_dataset
from acclimate.data.lexicon import domain_hashes
from acclimate.data.readers import CORPUS, source_hash, source_hashes
from acclimate.errors import DataError
from acclimate.evaluation.compare import (
    MAIN_MEASURE,
    METHOD,
    MIN_DEPTH,
    PairScores,
    RankingScores,
    deltas,
    histograms,
    intervals,
    judged_queries,
    score,
    won_and_lost,
)
from acclimate.evaluation.domain import DomainData, Models, domain_data, relatedness, term_accuracy
from acclimate.evaluation.guarding import Scores, counts, guard_rows, unseen_guards
from acclimate.evaluation.lexical import LexicalChoice, lexical_run
from acclimate.evaluation.measures import evaluate_run
from acclimate.evaluation.recommend import recommended
from acclimate.evaluation.reports import PER_QUERY_FILE, EvaluationReport, SplitScores
from acclimate.evaluation.significance import verdict
from acclimate.files import INPUTS_FILE, REPORT_FILE, hash_folder, read_json, write_jsonl, write_text
from acclimate.formats.facts import ADAPTER_FILE
from acclimate.models.reading import Reading, reading_warnings, unsuited
from acclimate.models.text_encoder import TextEncoder
from acclimate.progress import say
from acclimate.retrieval.trec import write_trec
from acclimate.runs.differences import is_current
from acclimate.runs.guards import guard_hashes
from acclimate.runs.opening import open_dataset
from acclimate.runs.resolve import base_of, compared_base, load, load_pair, load_whole, resolve, trained_folder
from acclimate.runs.run_folder import RunFolder, is_run
from acclimate.runs.step import Work, step
from acclimate.runs.tasks import BESIDE, TOKENIZER, one_task
from acclimate.runs.trained_on import trained_on, without_seen
from acclimate.runs.versions import NAME_CHARS
from acclimate.types import PAIR_ROLE

FORGETS_LESS = "training with --retain-data forgets less"


def evaluate(dataset: Path, adapter: Path, out: Path, config: RunConfig) -> EvaluationReport:
    """Measure the base and the adapted model on the same test split, through the same path.

    Args:
        dataset: `RUN/dataset`.
        adapter: `RUN/adapter`: an adapter, or a fully trained model.
        out: `RUN/evaluation`; gets report.json, per_query.jsonl, lexicon.txt, per_term.jsonl and, for retrieval,
            runs/{base,adapted,bm25}.trec.
        config: shared fields, `domain` and `evaluate`.

    Returns:
        what report.json holds.

    Raises:
        StorageError: dataset or adapter are not there.
        DataError: nothing to test on; or guard data, a lexicon, a background or topics that cannot be read.
    """
    settings, inputs, make = _planned(dataset, adapter, out, config)
    return step("evaluate", out, settings, inputs, make, seconds="evaluate_s", reads=[dataset, adapter, *config.named])


def evaluate_only(dataset: Path, adapter: Path, out: Path, config: RunConfig) -> EvaluationReport:
    """As `evaluate`, where `out` cannot be written: a result that is up to date is read, else it is not kept."""
    settings, inputs, make = _planned(dataset, adapter, out, config)
    if processes.on_main(lambda: is_current(out, settings, inputs)):
        return cast(EvaluationReport, read_json(out / REPORT_FILE))
    work = make()

    def reported() -> EvaluationReport:
        with TemporaryDirectory() as folder:
            return work.write(Path(folder))

    return processes.on_main(reported)


def _planned(
    dataset: Path, adapter: Path, out: Path, config: RunConfig
) -> tuple[dict[str, Any], dict[str, str], Callable[[], Work[EvaluationReport]]]:
    """The settings and inputs of an evaluation, and what makes it."""
    data = open_dataset(dataset)
    trained_folder(adapter)
    _require_test(data, RunFolder(out.parent))
    make = partial(_measure, data, adapter, RunFolder(out.parent).cache, config)
    return effective(config, "domain", "evaluate"), _inputs(dataset, adapter, config), make


def _measure(data: Dataset, adapter: Path, cache: Path, config: RunConfig) -> Work[EvaluationReport]:
    seen = trained_on([adapter, config.model])
    if not seen.complete:
        say(f"{adapter}, or what it was made from, does not say what it was trained on: nothing of that is left out")
    data, left_out = without_seen(data, seen, "the dataset")
    guards, guards_left_out = unseen_guards(config.evaluate.guard, seen, seed=config.seed, limit=config.limit)
    material = domain_data(data, config.domain, config.evaluate, config.seed)
    models = _load_both(adapter, cache, config)
    base = _scores(models.base, "base", [data, *guards], models.cache, config)
    adapted = _scores(models.adapted, "adapted", [data, *guards], models.cache, config)
    domain, by_term = _domain(models, material, config)
    reading = _reading(data, models.adapted)

    def write(folder: Path) -> EvaluationReport:
        report = _report([data, *guards], base, adapted, config)
        report["training_known"] = seen.complete
        report["made_by"] = data.info.get("made_by", {}).get("test", {})
        report["adapter_version"] = hash_folder(adapter)[:NAME_CHARS]
        report["test"]["trained_on"] = left_out
        for row, count in zip(report["guard"], guards_left_out, strict=True):
            row["trained_on"] = count
        report["sides"] = models.adapted.adapter.sides if models.adapted.adapter else "both"
        report["domain"] = domain
        terms = material.vocabulary.lexicon.terms.values()  # can be corrected, and given
        write_text(folder / "lexicon.txt", "".join(f"{term}\n" for term in terms))
        write_jsonl(folder / "per_term.jsonl", by_term)
        report["reading"] = reading
        report["unsuited"] = unsuited(reading)
        match base[0], adapted[0]:
            case RankingScores() as before, RankingScores() as after:
                lexical, report["lexical"] = _write_rankings(folder, data, before, after, config)
                report["test"]["bm25"] = dict(lexical.measures)
                best = after if report["recommend"] == "adapted" else before
                report["against_bm25"] = deltas(lexical, best, config.evaluate, config.seed)[MAIN_MEASURE["retrieval"]]
                report["won"], report["lost"] = won_and_lost(before, after, data)
            case PairScores() as before, PairScores() as after:
                _write_pairs(folder, data, before, after)
        report["recommend"] = recommended(report)
        return report

    return Work(write)


def _reading(data: Dataset, encoder: TextEncoder) -> dict[str, Reading]:
    """How the model reads the test's queries, and an even sample of the documents (of both sentences of pairs)."""
    if data.kind == "pairs":
        texts = [text for pair in data.pairs["test"] for text in (pair.sentence1, pair.sentence2)]
        return {"sentences": encoder.reading(facts.evenly(texts), PAIR_ROLE)}
    queries = list(judged_queries(data)[0].values())
    documents = facts.evenly(list(data.corpus.values()))
    return {"queries": encoder.reading(queries, "query"), "documents": encoder.reading(documents, "document")}


def _report(
    datasets: Sequence[Dataset], base: Sequence[Scores], adapted: Sequence[Scores], config: RunConfig
) -> EvaluationReport:
    """What report.json says of both models' scores on the test split and on the guards."""
    delta = deltas(base[0], adapted[0], config.evaluate, config.seed)
    found = verdict(delta[MAIN_MEASURE[datasets[0].kind]])
    test: SplitScores = {"base": base[0].measures, "adapted": adapted[0].measures, "delta": delta}
    return {
        "kind": datasets[0].kind,
        "test": cast(SplitScores, {**counts(datasets[0]), **test}),
        "training_known": True,
        "made_by": {},
        "verdict": found,
        "recommend": "adapted" if found == "better" else "base",
        "confidence": config.evaluate.confidence,
        "histograms": histograms(base[0], adapted[0]),
        "guard": guard_rows(datasets[1:], base[1:], adapted[1:], config.evaluate, config.seed, FORGETS_LESS),
        "sides": "both",
        "domain": {},
        "reading": {},
        "unsuited": "",
    }


def is_base(adapter: Path, config: RunConfig) -> bool:
    """Whether the model that is asked for is the adapter's base, so that the two can be compared; says if it is not.

    Args:
        adapter: `RUN/adapter`.
        config: its `model`, where one is given.

    Raises:
        ModelError: no such model.
    """
    folder = trained_folder(adapter)
    if config.model is None or base_of(folder, config.model) is not None or not (folder / ADAPTER_FILE).exists():
        return True
    say(f"{config.model} is not the base of {adapter}: it is measured alone")
    return False


def evaluate_model(source: str, adapter: Path | None, config: RunConfig) -> dict[str, Any]:
    """Measure one model on any data: on its test split where it defines one, else on all of it.

    Args:
        source: a run's folder, or whatever `prepare` reads. What the adapter's own run was made of has that run's
            split.
        adapter: adapter or run folder; the model alone if not given.
        config: shared fields and `evaluate`.

    Returns:
        the measures, flat; "low" and "high": the ends of their intervals, by measure; "queries" and "documents", or
        "pairs": how many they are taken over; and, where there are some, "trained_on": how many test queries are left
        out because the model was trained on them.

    Raises:
        DataError: the model was trained on all of them.
    """
    run = RunFolder(Path(source))
    if in_run := is_run(run.path):
        task = one_task(run.path, config)
        run, config = task.folder, task.config
    if in_run:
        data = open_dataset(run.dataset)
        _require_test(data, run)
    elif adapter is not None and (split := _own_split(source, adapter)) is not None:
        say(f"{source} is what {adapter} was trained on: its own split is used")
        _require_test(split, RunFolder(adapter) if is_run(adapter) else RunFolder.around(adapter))
        data = split
    else:
        data, _ = build_dataset(source, config.prepare, seed=config.seed, limit=config.limit, whole="test")
        say(f"{source}: measured is the test split: {data.info['splits']['test']}")
    if adapter is None:
        encoder = load_whole(config.base_model, **config.loading)
    else:
        encoder = load(trained_folder(adapter), base=config.model, **config.loading)
    data, left_out = without_seen(data, trained_on([adapter or config.base_model]), source)
    for note in reading_warnings(_reading(data, encoder)):
        say(f"warning: {note}")
    scores = score(encoder, data, config.evaluate, cache=run.cache if in_run else None, label="encode")
    found = intervals(scores, config.evaluate, config.seed)
    ends = {end: {name: getattr(interval, end) for name, interval in found.items()} for end in ("low", "high")}
    return {**scores.measures, **ends, **counts(data), **({"trained_on": left_out} if left_out else {})}


def _require_test(data: Dataset, run: RunFolder) -> None:
    """Say where the proof is, where all data was trained on (`adapt --final`, `adapt --folds`)."""
    if "test" not in data.qrels and "test" not in data.pairs:
        kept = f"The proof of its settings is {run.proof}. " if run.proof.is_dir() else ""
        if run.fold(1).path.is_dir():
            kept = f"What was measured by folds is {run.evaluation}. "
        raise DataError(
            f"{run.path} has no test split" + ": all of the data was trained on" * bool(kept),
            fix=f"{kept}Bring other test data: acclimate evaluate DATA --adapter RUN",
        )


def _own_split(source: str, adapter: Path) -> Dataset | None:
    """The dataset that the adapter's run has made of the same source, with its split; None where it has not."""
    runs = (RunFolder(adapter), RunFolder.around(adapter))
    datasets = [run.dataset for run in runs]
    datasets += [RunFolder(task).dataset for run in runs for task in sorted(run.tasks.glob("*"))]
    prepared = {dataset: read_json(dataset / INPUTS_FILE) for dataset in datasets if (dataset / INPUTS_FILE).is_file()}
    if not prepared or is_dataset(Path(source)):
        return None
    hashes = source_hashes(source, None)
    for dataset, inputs in prepared.items():
        ignored = {CORPUS, TOKENIZER}
        own = {name: value for name, value in inputs.items() if name not in ignored and not name.startswith(BESIDE)}
        if own == hashes:
            return open_dataset(dataset)
    return None


def _inputs(dataset: Path, adapter: Path, config: RunConfig) -> dict[str, str]:
    inputs = {
        "method": METHOD,
        "dataset": hash_folder(dataset),
        "base": compared_base(adapter, base=config.model).fingerprint,
        "adapter": resolve(adapter, base=config.model).sha256,
        "trained_on": trained_on([adapter, config.model]).sha256,
    }
    inputs |= domain_hashes(config.domain, config.evaluate.guard)
    if config.evaluate.topics is not None:
        inputs["topics"] = source_hash(config.evaluate.topics)
    return inputs | guard_hashes(config.evaluate.guard)


def _load_both(adapter: Path, cache: Path, config: RunConfig) -> Models:
    return Models(*load_pair(adapter, base=config.model, **config.loading), cache)


def _scores(
    encoder: TextEncoder, label: str, datasets: Sequence[Dataset], cache: Path | None, config: RunConfig
) -> list[Scores]:
    """Scores on the run's data with its task's prompts, and on guard data with the default ones."""
    guard = encoder.for_task(None)
    encoders = [encoder, *([guard] * (len(datasets) - 1))]
    pairs = zip(encoders, datasets, strict=True)
    return [score(one, data, config.evaluate, cache=cache, label=label) for one, data in pairs]


def _domain(
    models: Models, material: DomainData, config: RunConfig
) -> tuple[dict[str, Any], Sequence[Mapping[str, Any]]]:
    """The domain's metrics, and every term's scores."""
    accuracy, by_term = term_accuracy(models, material, config.evaluate, config.seed)
    metrics = {
        "lexicon": {"origin": material.vocabulary.origin, "terms": len(material.vocabulary.lexicon)},
        "term_accuracy": accuracy,
        "relatedness": relatedness(models, material, config.evaluate, config.seed),
    }
    return metrics, by_term


def _write_rankings(
    folder: Path, data: Dataset, base: RankingScores, adapted: RankingScores, config: RunConfig
) -> tuple[RankingScores, LexicalChoice]:
    """Rank by BM25 too; write the three run files and every query's scores. Returns BM25's scores, and its set-up."""
    queries, qrels = judged_queries(data)
    lexical, chosen = lexical_run(data, queries, max(config.evaluate.top_k, MIN_DEPTH))
    lexical_means, lexical_per_query = evaluate_run(lexical, qrels)
    scored = {"base": base.per_query, "adapted": adapted.per_query, "bm25": lexical_per_query}
    rows = ({"query_id": query, **{name: scores[query] for name, scores in scored.items()}} for query in qrels)
    write_jsonl(folder / PER_QUERY_FILE, rows)
    (folder / "runs").mkdir()
    for name, run in (("base", base.run), ("adapted", adapted.run), ("bm25", lexical)):
        write_trec(folder / "runs" / f"{name}.trec", run, name, config.evaluate.top_k)
    none = np.empty(0)
    return RankingScores(lexical_means, none, none, lexical, lexical_per_query, base.clusters), chosen


def _write_pairs(folder: Path, data: Dataset, base: PairScores, adapted: PairScores) -> None:
    """Write every test pair's label and both cosines."""
    columns = zip(data.pairs["test"], base.cosines.tolist(), adapted.cosines.tolist(), strict=True)
    rows = (
        {
            "sentence1": pair.sentence1,
            "sentence2": pair.sentence2,
            "label": pair.label,
            "base": before,
            "adapted": after,
        }
        for pair, before, after in columns
    )
    write_jsonl(folder / PER_QUERY_FILE, rows)
