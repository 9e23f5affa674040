"""`adapt`: the stages in a row, and the summary of the whole run."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig, dump_config, effective
from acclimate.files import REPORT_FILE, locked, read_json, write_json, write_text
from acclimate.flows.mine_and_train import Reports, mine_and_train
from acclimate.flows.three_stages import three_stages
from acclimate.formats.sources import resolve_model
from acclimate.runs.tasks import Task, all_tasks
from acclimate.stages.evaluate import evaluate
from acclimate.stages.prepare import prepare
from acclimate.stages.report import report

LIBRARIES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "acclimate")


def adapt(source: str | None, run: Path, config: RunConfig) -> dict[str, Any]:
    """Prepare, mine, train, evaluate and report; stages whose config and inputs are unchanged are kept.

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
    tasks = all_tasks(run, config, source)
    resolve_model(config.base_model, pooling=config.pooling)  # a model that cannot be used is refused before any work
    adapter = run / "adapter"
    written = dump_config(replace(config, model=config.base_model))
    with locked(run):
        processes.on_main(lambda: write_text(run / "config.toml", written))
        prepared = [prepare(task.source, task.dataset, task.config) for task in tasks]
        stages: list[dict[str, Any]] = []
        if config.stages.recipe == "three-stage":
            mined, trained, stages = three_stages(run, tasks[0].config)
        else:
            mined, trained = mine_and_train(tasks, adapter, config)
        evaluated = [evaluate(task.dataset, adapter, task.evaluation, task.config) for task in tasks]
        parts = [_part(*row) for row in zip(tasks, prepared, mined, evaluated, strict=True)]
        summary = _summary(config, tasks, parts, trained, _timings([*prepared, *mined, trained, *evaluated]))
        summary |= {"stages": stages} if stages else {}
        summary["model"] = dict(read_json(adapter / "acclimate.json")["base"])
        summary["timings"]["total_s"] = round(time.monotonic() - started, 3)
        if processes.is_main():
            write_json(run / REPORT_FILE, summary)
            report(run)
    return summary


def _part(
    task: Task, prepared: dict[str, Any], mined: dict[str, Any] | None, evaluated: dict[str, Any]
) -> dict[str, Any]:
    """What is said of one task."""
    shown = ("kind", "test", "verdict", "recommend", "sides", "confidence")
    return {
        "source": task.source,
        **{name: evaluated[name] for name in shown},
        "dataset": {name: value for name, value in prepared.items() if name != "timings"},
        "mining": {name: value for name, value in (mined or {}).items() if name != "timings"},
        "guard": evaluated.get("guard", []),
        "domain": evaluated.get("domain", {}),
    }


def _summary(
    config: RunConfig,
    tasks: Sequence[Task],
    parts: Sequence[dict[str, Any]],
    trained: dict[str, Any],
    timings: dict[str, float],
) -> dict[str, Any]:
    """The summary of the run: of its one task, or of each of them."""
    named = {task.name: part for task, part in zip(tasks, parts, strict=True)}
    of_tasks = parts[0] if len(parts) == 1 else {"tasks": named, "guard": parts[0]["guard"]}
    return {
        **of_tasks,
        "command": shlex.join(["acclimate", *sys.argv[1:]]),
        "timings": timings,
        "train": trained["train"],
        "config": effective(config, "domain", "prepare", "mine", "train", "stages", "objective", "evaluate"),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def _timings(reports: Reports) -> dict[str, float]:
    """Seconds of each stage, over all tasks."""
    seconds: dict[str, float] = {}
    for found in reports:
        for name, value in (found or {"timings": {"mine_s": 0.0}})["timings"].items():
            seconds[name] = round(seconds.get(name, 0.0) + value, 3)
    return seconds
