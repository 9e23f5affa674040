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
from typing import Any, TypeAlias

from acclimate import processes
from acclimate.configs import RunConfig, dump_config, effective
from acclimate.engine.run_folder import METRICS_FILE, STAGES, open_dataset
from acclimate.engine.tasks import Task, all_tasks, tasks_of
from acclimate.engine.three_stage import (
    FINETUNE,
    PRETRAIN,
    check_three_stages,
    finetuning,
    helped,
    pretraining,
    stage_rows,
    watched,
)
from acclimate.files import REPORT_FILE, locked, read_json, write_json, write_text
from acclimate.models.sources import resolve_model
from acclimate.progress import say
from acclimate.stages.blend import blend
from acclimate.stages.evaluate import evaluate
from acclimate.stages.mine import mine
from acclimate.stages.prepare import prepare
from acclimate.stages.report import report
from acclimate.stages.train import train, train_tasks
from acclimate.stages.weak import weak

Reports: TypeAlias = list[dict[str, Any] | None]
"""Of each task; None where there was nothing to do."""
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
    resolve_model(config.model, pooling=config.pooling)  # a model that cannot be used is refused before any work
    adapter = run / "adapter"
    with locked(run):
        processes.on_first(lambda: write_text(run / "config.toml", dump_config(config)))
        prepared = [prepare(task.source, task.dataset, task.config) for task in tasks]
        stages: list[dict[str, Any]] = []
        if config.stages.recipe == "three-stage":
            mined, trained, stages = three_stages(run, tasks[0].config)
        else:
            mined, trained = _mine_and_train(tasks, adapter, config)
        evaluated = [evaluate(task.dataset, adapter, task.evaluation, task.config) for task in tasks]
        parts = [_part(*row) for row in zip(tasks, prepared, mined, evaluated, strict=True)]
        summary = _summary(config, tasks, parts, trained, _timings([*prepared, *mined, trained, *evaluated]))
        summary |= {"stages": stages} if stages else {}
        summary["model"] = dict(read_json(adapter / "acclimate.json")["base"])
        summary["timings"]["total_s"] = round(time.monotonic() - started, 3)
        if processes.is_first():
            write_json(run / REPORT_FILE, summary)
            report(run)
    return summary


def _mine_and_train(tasks: Sequence[Task], out: Path, config: RunConfig) -> tuple[Reports, dict[str, Any]]:
    """The reports of mining, and of training."""
    tasks = [replace(task, mined=task.kind == "retrieval" and task.config.train.group_size > 1) for task in tasks]
    mined = [mine(task.dataset, task.negatives, task.config) if task.mined else None for task in tasks]
    return mined, train_tasks(tasks, out, config)


def three_stages(
    run: Path, config: RunConfig
) -> tuple[list[dict[str, Any] | None], dict[str, Any], list[dict[str, Any]]]:
    """Train on weak pairs, go on with what that model mines, merge; what does not help on dev is dropped.

    Args:
        run: holds `dataset`; gets `stages`, `negatives` and `adapter`.
        config: the whole run.

    Returns:
        The reports of mining and of the second training, and a row per stage.
    """
    (task,) = tasks_of(run, config)
    dataset = task.dataset
    check_three_stages(open_dataset(dataset))
    first, second = run / STAGES / PRETRAIN, run / STAGES / FINETUNE
    pairs = processes.on_first(lambda: weak(dataset, first / "pairs", config))
    pretrained = train(dataset, first / "pairs", first / "adapter", pretraining(config))
    start = first / "adapter" if helped(pretrained) else None
    say(f"stage {PRETRAIN}: " + ("better on dev than the base, kept" if start else "no better on dev, dropped"))
    tuned = finetuning(config, start)
    mined, trained = _mine_and_train([replace(task, config=tuned)], second / "adapter", tuned)
    processes.on_first(lambda: write_text(run / METRICS_FILE, (second / METRICS_FILE).read_text(encoding="utf-8")))
    adapters = {PRETRAIN: start} if start else {}
    merged = blend(dataset, {**adapters, FINETUNE: second / "adapter"}, run / "adapter", watched(config))
    timings = {"weak_pairs_s": pairs["timings"]["weak_pairs_s"], "pretrain_s": pretrained["timings"]["train_s"]}
    trained["timings"] = timings | trained["timings"] | merged["timings"]
    return mined, trained, stage_rows(pairs, pretrained, trained, merged)


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
