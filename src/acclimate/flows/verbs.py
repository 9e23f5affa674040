"""The commands as Python functions: `from acclimate import adapt`. The command line calls these and prints a table.

Each takes settings by keyword, by the names that `config.toml` and the flags have, and refuses those that it does not
read. Stages are imported inside: what can be refused is refused before torch is loaded, which takes seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, check_settings, checked_settings, settings_of, with_overrides
from acclimate.errors import StorageError, UsageError
from acclimate.files import is_writable, locked
from acclimate.flows.settings import Config, configured, measuring
from acclimate.ownership import called, commanded
from acclimate.progress import say
from acclimate.report.result import Result
from acclimate.runs.run_folder import RunFolder, is_run
from acclimate.types import Role


def adapt(
    data: str | Path | None = None,
    *,
    out: str | Path,
    config: Config = None,
    dry_run: bool = False,
    final: str | Path | None = None,
    **settings: Any,
) -> Result:
    """Prepare, mine, train, evaluate and report; a second start keeps what is still right and goes on.

    Args:
        data: a file of pairs, a BEIR folder, or a hub id; None where the config has `datasets`.
        out: the run's folder.
        config: see `Config`; what is already in `out` does not count.
        dry_run: only say how much there is to do.
        final: a finished run, whose settings have been proven: train with them on all data, and hold none of it apart.
        settings: of any stage, for example `rank=8`; with `final` only where and how it runs, such as `device="cuda"`.

    Returns:
        what `out/report.json` holds: "verdict", "test" and more, or "tasks" with these for each of several data sets;
        with `final` no test, and "final": what the proven run's was.

    Raises:
        AcclimateError: whatever a stage raises; finished stages stay on disk.
    """
    with commanded(by=called("adapt", data, out=out, config=config, final=final, **settings)):
        if final is not None:
            return _final(data, Path(out), Path(final), config, dry_run, settings)
        return _adapt(data, Path(out), config, dry_run, settings)


def _adapt(data: str | Path | None, out: Path, config: Config, dry_run: bool, settings: Mapping[str, Any]) -> Result:
    source = None if data is None else str(data)
    effective = configured("adapt", settings, config)
    if effective.images.image_model is not None:
        from acclimate.flows.adapt_images import adapt_images

        return Result(adapt_images(source, out, effective, settings, dry_run=dry_run), out)
    if effective.stages.folds is not None:
        _no_test_fraction(effective, settings)
    if dry_run:
        from acclimate.flows.plan import plan

        return Result(plan(source, effective))
    if effective.stages.folds is not None:
        from acclimate.flows.folds import adapt_in_folds

        return Result(adapt_in_folds(source, out, effective), out)
    from acclimate.flows.adapt import adapt as flow

    return Result(flow(source, out, effective), out)


def _no_test_fraction(config: RunConfig, settings: Mapping[str, Any]) -> None:
    """Refuse a share for a test split beside folds, each of which is the test once, whoever asks for it."""
    asked = config.prepare.test_fraction
    if settings.get("test_fraction") is not None or asked != RunConfig().prepare.test_fraction:
        raise UsageError(
            f"--folds {config.stages.folds} and --test-fraction {asked:g} exclude each other: every fold is a test",
            fix="Leave --test-fraction out, of the file of --config too; or leave --folds out.",
        )


def _final(
    data: str | Path | None, out: Path, proven: Path, config: Config, dry_run: bool, settings: Mapping[str, Any]
) -> Result:
    if config is not None or dry_run:
        given = "--dry-run" if dry_run else "--config"
        raise UsageError(f"{given} with --final", fix=f"Leave it out: the settings are those of {proven}.")
    if fixed := [name for name in settings if name not in settings_of("adapt --final RUN")]:
        raise UsageError(
            f"{fixed[0]} with --final",
            possible=", ".join(settings_of("adapt --final RUN")),
            fix=f"Leave it out: the settings are those of {proven}, which were proven.",
        )
    from acclimate.flows.final import final as flow
    from acclimate.flows.final import proven_run

    found = proven_run(proven)
    machine = with_overrides(found.config, checked_settings(settings, "adapt"))
    return Result(flow(None if data is None else str(data), out, found, machine), out)


def prepare(data: str | Path | None = None, *, out: str | Path, config: Config = None, **settings: Any) -> Result:
    """Read data in any common form; write a clean, leak-free dataset to `out/dataset`.

    Args:
        data: a file of pairs, a BEIR folder, or a hub id; None where the config has `datasets`.
        out: the run's folder.
        config: see `Config`.
        settings: such as `test_fraction=0.2`.
    """
    run, source = Path(out), None if data is None else str(data)
    effective = configured("prepare", settings, config, run)
    effective = dataclasses.replace(effective, model=effective.base_model)
    from acclimate.flows.record import stage_of
    from acclimate.runs.tasks import all_tasks
    from acclimate.stages.prepare import prepare as stage

    tasks = all_tasks(run, effective, source)
    with stage_of(run, effective, called("prepare", data, out=out, config=config, **settings)):
        return _result(
            RunFolder(run).dataset, {task.name: stage(task.source, task.dataset, task.config) for task in tasks}
        )


def mine(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Find hard negatives in the corpus of a prepared run; write them to `run/negatives`.

    Args:
        run: the run's folder.
        config: see `Config`.
        settings: such as `num_negatives=2`.
    """
    run = Path(run)
    effective = configured("mine", settings, config, run)
    from acclimate.runs.tasks import minable_tasks
    from acclimate.stages.mine import mine as stage

    with at_work_in(run, effective, called("mine", run, config=config, **settings)):
        tasks = minable_tasks(run, effective)
        reports = {task.name: stage(task.dataset, task.negatives, task.config) for task in tasks}
    return _result(RunFolder(run).negatives, reports)


def train(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Train an adapter on a run's dataset and, where it was mined, its negatives; write it to `run/adapter`.

    Args:
        run: the run's folder.
        config: see `Config`.
        settings: such as `rank=8, epochs=1`.
    """
    run = Path(run)
    effective = configured("train", settings, config, run)
    effective = dataclasses.replace(effective, model=effective.base_model)
    from acclimate.runs.tasks import all_tasks
    from acclimate.stages.train import train_tasks

    with at_work_in(run, effective, called("train", run, config=config, **settings)):
        tasks = [dataclasses.replace(task, mined=task.negatives.is_dir()) for task in all_tasks(run, effective)]
        return Result(train_tasks(tasks, RunFolder(run).adapter, effective), RunFolder(run).adapter)


def train_reranker(run: str | Path, base: str, *, config: Config = None, **settings: Any) -> Result:
    """Train a reranker on the same data and negatives; write it to `run/reranker`.

    Args:
        run: the run's folder.
        base: a cross-encoder, Qwen3-Reranker, or an embedding model of the BERT family, which gets a new head.
        config: see `Config`.
        settings: such as `epochs=1`.
    """
    run = Path(run)
    effective = configured("train-reranker", settings, config, run)
    from acclimate.flows.reranker import train_reranker as flow

    with at_work_in(run, effective, called("train_reranker", run, base, config=config, **settings)):
        return Result(flow(run, base, effective), RunFolder(run).reranker)


def evaluate(data: str | Path, *, adapter: str | Path | None = None, config: Config = None, **settings: Any) -> Result:
    """Compare base and adapted on the test split of a run; or measure one model on any data.

    Args:
        data: a run with an adapter; or any data, or a run together with `adapter` or a `model` that is not its base.
        adapter: adapter or run folder to put on the model.
        config: see `Config`.
        settings: such as `sign_flips=5000`.

    Returns:
        what `run/evaluation/report.json` holds ("tasks" with these for each of several), or would hold where the run
        cannot be written; of one model its measures, with "low" and "high", the ends of their intervals.
    """
    check_settings("evaluate", settings)
    from acclimate.runs.versions import in_use
    from acclimate.stages import evaluate as stage

    run = Path(data)
    prepared = is_run(run)
    own = in_use(RunFolder(run).adapter)
    if prepared:
        effective = measuring("evaluate", settings, config, run, adapter)
    else:
        effective = configured("evaluate", settings, config)
    compares = adapter is None and own.is_dir() and stage.is_base(own, effective)
    if compares:
        check_settings("evaluate RUN" + " with guard data" * bool(effective.evaluate.guard), settings)
    else:
        check_settings("evaluate of one model on " + ("RUN" if prepared else "DATA"), settings)
    if not compares:
        return Result(stage.evaluate_model(str(data), None if adapter is None else Path(adapter), effective))
    if not is_writable(run):
        say(f"{run} cannot be written: the result is shown, and not kept")
        return _result(RunFolder(run).evaluation, _evaluated(run, effective, stage.evaluate_only))
    with at_work_in(run, effective, called("evaluate", data, config=config, **settings)):
        return _result(RunFolder(run).evaluation, _evaluated(run, effective, stage.evaluate))


def _evaluated(
    run: Path, config: RunConfig, stage: Callable[[Path, Path, Path, RunConfig], Mapping[str, Any]]
) -> dict[str | None, Mapping[str, Any]]:
    """The report of every task of a run."""
    from acclimate.runs.tasks import tasks_of

    adapter = RunFolder(run).adapter
    return {task.name: stage(task.dataset, adapter, task.evaluation, task.config) for task in tasks_of(run, config)}


def evaluate_reranker(run: str | Path, reranker: str, *, config: Config = None, **settings: Any) -> Result:
    """Measure what a reranker makes of the run's retrieval, on the test split; write it to `run/reranking`.

    Args:
        run: the run's folder.
        reranker: a run with a reranker, a model's folder, or a hub id.
        config: see `Config`.
        settings: such as `rerank_depth=50`.
    """
    run = Path(run)
    effective = measuring("evaluate-reranker", settings, config, run)
    from acclimate.flows.reranker import evaluate_reranker as flow

    with at_work_in(run, effective, called("evaluate_reranker", run, reranker, config=config, **settings)):
        return Result(flow(run, reranker, effective), RunFolder(run).reranking)


def merge(
    models: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    data: str | Path | None = None,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Fold the adapter of a run into its base, or make one of several adapters or models.

    Args:
        models: one or more runs, adapter folders, or whole models. One alone becomes a self-contained model.
        out: the folder to write.
        data: run or dataset whose dev split decides where something is chosen; the first model's run if not given.
        config: see `Config`.
        settings: such as `method="ties"`.
    """
    names = [models] if isinstance(models, str | Path) else list(models)
    if not names:
        raise UsageError("nothing to merge", possible="one or more runs, adapter folders or models")
    effective = measuring("merge", settings, config, Path(names[0]))
    asked = effective.merge
    if len(names) == 1 and asked.method is None and not asked.weights and asked.merged_rank is None:
        check_settings("merge of one adapter", settings)
    from acclimate.stages.merge import merge as stage

    report = stage(names, Path(out), effective, data=None if data is None else Path(data))
    return Result(report, Path(out))


def similarity(run: str | Path, text_a: str, text_b: str, *, config: Config = None, **settings: Any) -> Result:
    """Compute the cosine of two texts by base and by adapted.

    Args:
        run: the run's folder.
        text_a: one text.
        text_b: another.
        config: see `Config`.
        settings: such as `device="cpu"`.

    Returns:
        {"base", "adapted"}, from -1 to 1.
    """
    effective = measuring("similarity", settings, config, Path(run))
    from acclimate.stages.similarity import similarity as stage

    return Result(stage(Path(run), text_a, text_b, effective))


def encode_file(
    texts: str | Path,
    *,
    out: str | Path,
    role: Role = "document",
    adapter: str | Path | None = None,
    replace: bool = False,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Encode a file of texts into a file of unit vectors; in memory, `load(...).encode` does it.

    Args:
        texts: a text file with one text per line, or JSONL with a field "text".
        out: .npy or .safetensors.
        role: whose prompt, and side of the adapter, is used.
        adapter: adapter or run folder to put on the model.
        replace: write over a file at `out`, whoever wrote it.
        config: see `Config`.
        settings: such as `dim=128`.
    """
    effective = configured("encode", settings, config)
    from acclimate.stages.encode import encode as stage

    own = None if adapter is None else Path(adapter)
    return Result(stage(Path(texts), role, own, Path(out), effective, replace=replace))


def compare(runs: Sequence[str | Path], *, config: Config = None, **settings: Any) -> Result:
    """Compare finished runs on the test queries, or labelled pairs, that they share.

    Args:
        runs: two or more folders of runs that were evaluated; the others are compared with the first.
        config: see `Config`.
        settings: such as `sign_flips=5000`.

    Returns:
        see `acclimate.stages.compare_runs`.
    """
    effective = configured("compare", settings, config)
    from acclimate.stages.compare_runs import compare_runs

    return Result(compare_runs([Path(run) for run in runs], effective))


def versions(run: str | Path, *, promote: str | None = None, rollback: bool = False) -> Result:
    """List the versions of a run's adapter, the oldest first, after switching to another one if that is asked for.

    Args:
        run: the run's folder.
        promote: the version (or the beginning of its name) that `RUN/adapter` shall lead to.
        rollback: go back to the version before the present one.

    Returns:
        {"versions": [{"name", "set_by", "metrics"}]}; `set_by` is None for all but the one in use.

    Raises:
        StorageError: the run has no adapter.
        UsageError: no such version, or none before the present one.
    """
    from acclimate.formats.facts import read_facts
    from acclimate.runs import versions as kept

    folder = RunFolder(Path(run))
    if not kept.in_use(folder.adapter).is_dir():
        raise StorageError(f"{run} holds no adapter", fix=f"Make one with: acclimate train {run}")
    if promote is not None or rollback:
        from acclimate.flows.record import refresh

        with locked(folder.path):
            if promote is not None:
                kept.promote(folder, promote)
            else:
                kept.rollback(folder)
            refresh(folder)
    rows = [
        {"name": it.name, "set_by": it.set_by, "metrics": dict(read_facts(it.folder)["metrics"])}
        for it in kept.versions(folder)
    ]
    return Result({"versions": rows}, folder.adapter)


def _result(folder: Path, reports: Mapping[str | None, Mapping[str, Any]]) -> Result:
    """The report of a run's only task; of several, each by its name."""
    if len(reports) == 1:
        return Result(next(iter(reports.values())), folder)
    return Result({"tasks": {str(name): report for name, report in reports.items()}})


@contextmanager
def at_work_in(run: Path, config: RunConfig, call: str) -> Iterator[None]:
    """One process at a time in a run that has a dataset; the run remembers the settings, and what was done."""
    if not is_run(run):
        raise StorageError(f"{run} holds no dataset", fix=f"Make it with: acclimate prepare DATA --out {run}")
    from acclimate.flows.record import stage_of

    with stage_of(run, config, call):
        yield
