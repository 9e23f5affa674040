"""`adapt`: the stages in a row, and the summary of the whole run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.data.build import build_datasets
from acclimate.data.dataset import Dataset
from acclimate.data.made import QUERIES_FILE
from acclimate.errors import UsageError
from acclimate.files import REPORT_FILE, read_json
from acclimate.flows.from_documents import paired
from acclimate.flows.mine_and_train import mine_and_train
from acclimate.flows.record import stage_of
from acclimate.flows.three_stages import three_stages
from acclimate.models.encoder import Encoder
from acclimate.ownership import check_replaceable, marker, written_by
from acclimate.report.summary import RunSummary, StageRow
from acclimate.runs.records import write_settings
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import no_adapter
from acclimate.runs.tasks import Task, all_tasks
from acclimate.stages.evaluate import evaluate
from acclimate.stages.prepare import prepare_together
from acclimate.stages.unjudged import unjudged
from acclimate.types import Rejected


def adapt(source: str | None, run: Path, config: RunConfig) -> RunSummary:
    """Prepare, mine, train, evaluate and report; stages whose config and inputs are unchanged are kept.

    What is evaluated is the adapter in use: where one was promoted (`runs.versions`), a newly trained one is not it.

    Args:
        source: a file of pairs, a BEIR folder, or a hub id; None where the config has datasets.
        run: the folder of the run; made if it is not there.
        config: every setting of every stage.

    Returns:
        what `run/report.json` holds.

    Raises:
        AcclimateError: whatever a stage raises; finished stages stay on disk.
    """
    started = time.monotonic()
    source = paired(source, run, config)
    tasks, folder = all_tasks(run, config, source), RunFolder(run)
    config = replace(config, model=config.base_model)
    if any(task.config.prepare.test_fraction == 0 for task in tasks):  # the data may bring a test split, or not
        processes.on_main(lambda: bool(read_with_test(tasks, config)))
    with whole_run(tasks, run, config) as more:
        prepared = prepare_together([(task.source, task.dataset, task.config) for task in tasks])
        for task, found in zip(tasks, prepared, strict=True):
            require_test(task, "test" in found["counts"])
        trained = train_adapter(tasks, run, config)
        evaluated = [evaluate(task.dataset, folder.adapter, task.evaluation, task.config) for task in tasks]
        if trained.stages:
            more["stages"] = trained.stages
        queries = folder.made_pairs / QUERIES_FILE
        if source == str(folder.made_pairs) and queries.is_file():
            unjudged(queries, folder, config)
        made = [read_json(folder.made_pairs / REPORT_FILE)] if source == str(folder.made_pairs) else []
        more["timings"] = timings([*made, *prepared, *trained.reports, *evaluated], started)
    return cast(RunSummary, processes.on_main(lambda: read_json(folder.report)))


@contextmanager
def whole_run(tasks: Sequence[Task], run: Path, config: RunConfig) -> Iterator[dict[str, Any]]:
    """Hold a run from its first stage to its last, and write its summary and page at the end (see `stage_of`).

    What cannot come to an end is refused before any work: a model that cannot be used, a folder of the user's where a
    later stage has to write.

    Args:
        tasks: of the run.
        run: its folder.
        config: the whole run, with its model named.
    """
    Encoder.check(config.base_model, **config.loading)
    folder = RunFolder(run)
    with stage_of(run, config, "acclimate.adapt", page=True) as more:
        processes.on_main(lambda: _check_outputs(tasks, folder))
        processes.on_main(lambda: write_settings(folder, config))  # a second start may read them
        yield more


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training reports, whichever recipe it follows."""

    reports: list[Mapping[str, Any] | None]
    """Those of mining and of the training."""
    stages: list[StageRow]
    """A row for each stage of a training that has several."""


def train_adapter(tasks: Sequence[Task], run: Path, config: RunConfig) -> Trained:
    """Mine and train on a run's prepared data, by the recipe that the config asks for; writes `run/adapter`."""
    if config.stages.recipe == "three-stage":
        mined, trained, stages = three_stages(run, tasks[0].config)
        return Trained([*mined, trained], stages)
    mined, trained = mine_and_train(tasks, RunFolder(run).adapter, config)
    return Trained([*mined, trained], [])


def read_with_test(tasks: Sequence[Task], config: RunConfig) -> list[tuple[Dataset, list[Rejected]]]:
    """Read the data of a run in memory, as `build_datasets`, and make sure that all of it has a test split.

    Raises:
        UsageError: a dataset has none.
        DataError: it cannot be read.
    """
    sources = [(task.source, task.config.prepare) for task in tasks]
    built = build_datasets(sources, seed=config.seed, limit=config.limit)
    for task, (dataset, _) in zip(tasks, built, strict=True):
        require_test(task, "test" in dataset.qrels or "test" in dataset.pairs)
    return built


def require_test(task: Task, has_test: bool) -> None:
    """Refuse a run that could prove nothing in the end, before it trains.

    Raises:
        UsageError: the task's dataset has no test split.
    """
    if not has_test:
        raise UsageError(
            f"{task.source} has no test split, and test_fraction = {task.config.prepare.test_fraction:g} cuts none: "
            "whether the adapted model is better could not be found out",
            possible="a --test-fraction above 0, or data with a test split",
            fix="To train on everything, with settings proven before: acclimate adapt DATA --out NEW --final RUN",
        )


def _check_outputs(tasks: Sequence[Task], run: RunFolder) -> None:
    """Refuse at once what a later stage would refuse: a folder of the user's where it has to write."""
    check_replaceable(run.adapter, no_adapter)
    for task in tasks:
        for folder, kind in ((task.dataset, "prepare"), (task.negatives, "mine"), (task.evaluation, "evaluate")):
            if marker(folder) is None:
                check_replaceable(folder, written_by(kind))


def timings(reports: Sequence[Mapping[str, Any] | None], started: float) -> dict[str, float]:
    """Seconds of each stage, over all tasks, and since the start (of `time.monotonic`)."""
    seconds: dict[str, float] = {}
    for found in reports:
        for name, value in (found or {"timings": {"mine_s": 0.0}})["timings"].items():
            seconds[name] = round(seconds.get(name, 0.0) + value, 3)
    return seconds | {"total_s": round(time.monotonic() - started, 3)}
