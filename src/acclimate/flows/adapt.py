"""`adapt`: the stages in a row, and the summary of the whole run."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from acclimate import processes
from acclimate.configs import RunConfig, dump_config, effective
from acclimate.data.reports import PreparedReport
from acclimate.errors import UsageError
from acclimate.evaluation.reports import EvaluationReport
from acclimate.files import REPORT_FILE, locked, read_json, write_json, write_text
from acclimate.flows.mine_and_train import mine_and_train
from acclimate.flows.three_stages import three_stages
from acclimate.formats.facts import ADAPTER_FILE
from acclimate.formats.sources import resolve_model
from acclimate.mining.reports import MineReport
from acclimate.report.summary import RunSummary, StageRow, TaskSummary
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task, all_tasks
from acclimate.stages.evaluate import evaluate
from acclimate.stages.prepare import prepare_together
from acclimate.stages.report import report
from acclimate.training.reports import TrainReport

LIBRARIES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "acclimate")


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
    tasks, folder = all_tasks(run, config, source), RunFolder(run)
    resolve_model(config.base_model, pooling=config.pooling)  # a model that cannot be used is refused before any work
    written = dump_config(replace(config, model=config.base_model))
    with locked(run):
        processes.on_main(lambda: write_text(folder.config, written))
        prepared = prepare_together([(task.source, task.dataset, task.config) for task in tasks])
        for task, found in zip(tasks, prepared, strict=True):
            require_test(task, "test" in found["counts"])
        stages: list[StageRow] = []
        if config.stages.recipe == "three-stage":
            mined, trained, stages = three_stages(run, tasks[0].config)
        else:
            mined, trained = mine_and_train(tasks, folder.adapter, config)
        trained = _of_the_one_in_use(folder, trained)
        evaluated = [evaluate(task.dataset, folder.adapter, task.evaluation, task.config) for task in tasks]
        parts = [_part(*row) for row in zip(tasks, prepared, mined, evaluated, strict=True)]
        summary = _summary(config, tasks, parts, trained, timings([*prepared, *mined, trained, *evaluated]))
        if stages:
            summary["stages"] = stages
        summary["model"] = read_json(folder.adapter / ADAPTER_FILE)["base"]
        summary["timings"]["total_s"] = round(time.monotonic() - started, 3)
        if processes.is_main():
            write_json(folder.report, summary)
            report(run)
    return summary


def _of_the_one_in_use(run: RunFolder, trained: TrainReport) -> TrainReport:
    """The report of the training that made the adapter in use: another one than the last where one was promoted."""
    path = run.adapter / REPORT_FILE
    found = read_json(path) if path.is_file() else {}
    return {**trained, "train": found["train"]} if "train" in found else trained


def _part(task: Task, prepared: PreparedReport, mined: MineReport | None, evaluated: EvaluationReport) -> TaskSummary:
    """What is said of one task."""
    part: TaskSummary = {
        "source": task.source,
        "kind": evaluated["kind"],
        "test": evaluated["test"],
        "verdict": evaluated["verdict"],
        "recommend": evaluated["recommend"],
        "unsuited": evaluated["unsuited"],
        "sides": evaluated["sides"],
        "confidence": evaluated["confidence"],
        "dataset": _untimed(prepared),
        "mining": _untimed(mined or {}),
        "guard": evaluated.get("guard", []),
        "domain": evaluated.get("domain", {}),
    }
    if "against_bm25" in evaluated:
        part["against_bm25"] = evaluated["against_bm25"]
    return part


def _untimed(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "timings"}


def _summary(
    config: RunConfig,
    tasks: Sequence[Task],
    parts: Sequence[TaskSummary],
    trained: TrainReport,
    timings: dict[str, float],
) -> RunSummary:
    """The summary of the run: of its one task, or of each of them."""
    named = {str(task.name): part for task, part in zip(tasks, parts, strict=True)}
    of_tasks = parts[0] if len(parts) == 1 else {"tasks": named, "guard": parts[0]["guard"]}
    return cast(RunSummary, {**of_tasks, **run_facts(config, trained, timings)})


def run_facts(config: RunConfig, trained: TrainReport, timings: dict[str, float]) -> RunSummary:
    """What is said of every run, whatever it proves."""
    return {
        "command": shlex.join(["acclimate", *sys.argv[1:]]),
        "timings": timings,
        "train": trained["train"],
        "config": effective(config, "domain", "prepare", "mine", "train", "stages", "objective", "evaluate"),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


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


def timings(reports: Sequence[Mapping[str, Any] | None]) -> dict[str, float]:
    """Seconds of each stage, over all tasks."""
    seconds: dict[str, float] = {}
    for found in reports:
        for name, value in (found or {"timings": {"mine_s": 0.0}})["timings"].items():
            seconds[name] = round(seconds.get(name, 0.0) + value, 3)
    return seconds
