"""`adapt --folds`: cross-validation for data too small for a test split; then one adapter on all of it.

What is proven is the way of training, by adapters that each see a part of the data. The adapter that is kept is trained
in the same way on all data, and has no test of its own: the report says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.data.build import build_datasets
from acclimate.data.splits import ALL_DATA, Fold
from acclimate.errors import UsageError
from acclimate.files import read_json
from acclimate.flows.adapt import timings, train_adapter, whole_run
from acclimate.flows.from_documents import paired
from acclimate.flows.stage_settings import check_three_stages
from acclimate.progress import say
from acclimate.report.summary import RunSummary
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task, all_tasks
from acclimate.stages.evaluate import evaluate
from acclimate.stages.pool import pool_folds
from acclimate.stages.prepare import prepare_together
from acclimate.stages.weak import weak_pairs_of


def adapt_in_folds(source: str | None, run: Path, config: RunConfig) -> RunSummary:
    """Train and test one adapter per fold, pool the tests, train the adapter that is kept on all data, and report.

    Args:
        source: a file of pairs, or a hub id, without a test split; None where the config names its one dataset.
        run: the folder of the run; each fold is a run of its own in `run/folds`.
        config: every setting of every stage; `config.stages.folds` is how many.

    Returns:
        what `run/report.json` holds: "test" and "verdict" are of all folds together.

    Raises:
        AcclimateError: whatever a stage raises; finished stages stay on disk.
    """
    started = time.monotonic()
    task, folds = one_dataset(run, config, paired(source, run, config))
    folder = RunFolder(run)
    config = replace(config, model=config.base_model)
    if config.stages.recipe == "three-stage":
        processes.on_main(lambda: _require_stages(task, folds[0]))
    with whole_run([task], run, config) as more:
        reports = [report for fold in folds for report in _prove(task, fold)]
        pooled = pool_folds([folder.fold(fold.number) for fold in folds], task.evaluation, task.config)
        say("all folds are tested; now the adapter that is kept, on all data")
        prepared = prepare_together([(task.source, task.dataset, task.config)], ALL_DATA)
        trained = train_adapter([task], run, task.config)
        if trained.stages:
            more["stages"] = trained.stages
        more["timings"] = timings([*reports, pooled, *prepared, *trained.reports], started)
    return cast(RunSummary, processes.on_main(lambda: read_json(folder.report)))


def one_dataset(run: Path, config: RunConfig, source: str | None) -> tuple[Task, list[Fold]]:
    """The run's only task, and its folds.

    Raises:
        UsageError: the run has several datasets.
    """
    tasks, number = all_tasks(run, config, source), config.stages.folds or 0
    if len(tasks) > 1:
        raise UsageError(
            f"--folds {number} with {len(tasks)} datasets",
            possible="one dataset",
            fix="Run each dataset by itself, or leave --folds out.",
        )
    return tasks[0], [Fold(fold, number) for fold in range(1, number + 1)]


def _require_stages(task: Task, fold: Fold) -> None:
    """Refuse data that three stages cannot be made of, before anything is prepared: all folds are alike.

    Raises:
        UsageError, DataError: why not.
    """
    config = task.config
    ((data, _),) = build_datasets([(task.source, config.prepare)], seed=config.seed, limit=config.limit, fold=fold)
    check_three_stages(data)
    weak_pairs_of(data, task.source, config)


def _prove(task: Task, fold: Fold) -> list[Mapping[str, Any] | None]:
    """Train on the other folds, test on this one; returns the stages' reports."""
    say(f"{fold}:")
    folder = task.folder.fold(fold.number)
    config = measured = task.config
    if fold.number > 1:  # what guards against forgetting is measured once
        measured = replace(config, evaluate=replace(config.evaluate, guard=()))
    task = Task(None, config, folder, folder.dataset, folder.negatives, task.source)
    prepared = prepare_together([(task.source, task.dataset, config)], fold)
    trained = train_adapter([task], folder.path, config)
    evaluated = evaluate(task.dataset, folder.adapter, task.evaluation, measured)
    return [*prepared, *trained.reports, evaluated]
