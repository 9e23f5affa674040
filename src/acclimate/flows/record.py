"""What is written about a run after each stage: its settings, its summary, and its page where there is one."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from acclimate import processes
from acclimate.configs import RunConfig, effective, load_config
from acclimate.errors import UsageError
from acclimate.files import INPUTS_FILE, REPORT_FILE, hash_folder, locked, read_json, write_json
from acclimate.flows.stage_settings import FINETUNE
from acclimate.formats.facts import ADAPTER_FILE
from acclimate.ownership import check_replaceable, commanded, marker
from acclimate.report.summary import RunSummary, TaskSummary
from acclimate.runs.records import (
    REPORT_FORMAT,
    check_settings_file,
    files_of,
    made,
    not_summary,
    remembered,
    write_settings,
)
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task, tasks_of
from acclimate.stages.report import report
from acclimate.training.reports import EncoderTraining

LIBRARIES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "acclimate")
OF_EVALUATION = ("kind", "test", "verdict", "recommend", "unsuited", "against_bm25", "sides", "confidence", "made_by")
"""What the summary takes from the evaluation of a task, besides guards and domain."""


@contextmanager
def stage_of(path: Path, config: RunConfig, call: str, *, page: bool = False) -> Iterator[dict[str, Any]]:
    """Hold a run while a stage works in it; afterwards its settings, summary and page say what was done.

    Yields a mapping: what is put into it stands in the summary, whatever the artifacts say.

    Args:
        path: the run's folder.
        config: what the run's `config.toml` shall say then.
        call: the stage as it would be called from Python, where no command line is being carried out.
        page: write the page where there is none yet, too.

    Raises:
        UsageError: a file of the user's would be overwritten; nothing has been done then.
        StorageError: another process is at work in the run.
    """
    run = RunFolder(path)
    with locked(path), commanded(by=call):
        config = processes.on_main(lambda: _checked(run, config))
        more: dict[str, Any] = {}
        yield more
        if processes.is_main():
            write_settings(run, config)
            write_json(run.report, {**summarise(run, config), **more})
            if page or run.page.exists():
                report(path)


def refresh(run: RunFolder) -> None:
    """Bring a run's summary, where it has one, and its page up to date after a switch of the adapter's version."""
    if run.report.is_file() and run.config.is_file():
        check_replaceable(run.report, not_summary)
        write_json(run.report, summarise(run, load_config(run.config)))
        if run.page.is_file():
            report(run.path)


def _checked(run: RunFolder, config: RunConfig) -> RunConfig:
    if (found := marker(run.path)) is not None:
        raise UsageError(
            f"{run.path} is not a run, but what a step wrote ({found.get('kind')})", fix="Give another folder."
        )
    config = remembered(run, config)
    check_settings_file(run, config)
    for file, objection in files_of(run).items():
        check_replaceable(file, objection)
    return config


def summarise(run: RunFolder, config: RunConfig) -> RunSummary:
    """What `RUN/report.json` holds: what the stages reported, who made what, the settings, the versions.

    Of several tasks it holds the parts once all of them are evaluated.
    """
    tasks, trained = tasks_of(run.path, remembered(run, config)), _training_of(run)
    parts = {str(task.name): _part(task, run) for task in tasks}
    summary: dict[str, Any] = {**REPORT_FORMAT, "made": made(run)}
    if len(parts) == 1:
        summary |= parts.popitem()[1]
    elif trained and all("test" in part for part in parts.values()):
        summary |= {"tasks": parts, "guard": next(iter(parts.values()))["guard"]}
    if len(commands := {it["command"] for it in summary["made"].values()}) == 1:
        summary["command"] = commands.pop()
    if trained:
        summary["train"] = trained
    if (run.adapter / ADAPTER_FILE).is_file():
        summary["model"] = read_json(run.adapter / ADAPTER_FILE)["base"]
    if proof := _json(run.proof / REPORT_FILE):
        summary |= {"final": _untimed(proof), "sides": config.train.sides}
    if images := _json(run.image_evaluation / REPORT_FILE):
        summary["images"] = _images(run, images)
    before = _json(run.report)
    if "stages" in before and before.get("made", {}).get("adapter") == summary["made"].get("adapter"):
        summary["stages"] = before["stages"]
    summary |= {
        "timings": _timings(run, tasks),
        "config": effective(
            config,
            *("images",) * ("images" in summary),
            "domain",
            "prepare",
            "mine",
            "train",
            "stages",
            "objective",
            "evaluate",
        ),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    return cast(RunSummary, summary)


def _part(task: Task, run: RunFolder) -> TaskSummary:
    """What is said of one task, as far as its stages have come."""
    prepared, mined, evaluated = (
        _json(folder / REPORT_FILE) for folder in (task.dataset, task.negatives, task.evaluation)
    )
    trained_from = _json(_trained_folder(run) / INPUTS_FILE)
    part: dict[str, Any] = {}
    if prepared:
        part |= {"source": prepared["source"], "kind": prepared["kind"], "dataset": _untimed(prepared)}
        if prepared["source"] == str(run.made_pairs) and (pairs := _json(run.made_pairs / REPORT_FILE)):
            part["pairs"] = _untimed(pairs)
            if found := _json(run.unjudged / REPORT_FILE):
                part["unjudged"] = _untimed(found)
    if not trained_from or f"{task.label}negatives" in trained_from:
        part["mining"] = _untimed(mined)
    else:
        part["mining"] = {}
    if evaluated:
        part |= {name: evaluated[name] for name in OF_EVALUATION if name in evaluated}
        part |= {"guard": evaluated.get("guard", []), "domain": evaluated.get("domain", {})}
        if "folds" in evaluated:
            part["folds"] = evaluated["folds"]
        elif outdated := _outdated(evaluated, run, "evaluate again."):
            part["outdated"] = outdated
    if reranking := _json(task.folder.reranking / REPORT_FILE):
        part["reranking"] = reranking
    if through_index := _json(task.folder.index_evaluation / REPORT_FILE):
        part["index"] = through_index
        if outdated := _outdated(through_index, run, f"acclimate evaluate {run.path} --index"):
            part["index"]["outdated"] = outdated
    if stored := _json(task.folder.vectors / REPORT_FILE):
        part["vectors"] = stored
        if outdated := _outdated(stored, run, f"acclimate vectors {run.path}"):
            part["vectors"]["outdated"] = outdated
    return cast(TaskSummary, part)


def _images(run: RunFolder, evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of images: their scores, how many there are, how the projection was trained."""
    prepared, trained = _json(run.images / REPORT_FILE), _json(run.projection / REPORT_FILE)
    scores = {name: value for name, value in evaluated.items() if name not in ("shown", "timings")}
    return {
        "source": prepared.get("source"),
        **scores,
        "dataset": _untimed(prepared),
        "train": trained.get("train", {}),
    }


def _outdated(evaluated: Mapping[str, Any], run: RunFolder, again: str) -> str:
    """What is to be said where the scores are those of another version of the adapter, and what measures this one; ""
    where they are not."""
    measured = evaluated.get("adapter_version")
    if measured is None or not run.adapter.is_dir() or measured == hash_folder(run.adapter)[: len(measured)]:
        return ""
    return f"The scores are those of version {measured} of the adapter, and another one is in use now: {again}"


def _trained_folder(run: RunFolder) -> Path:
    """Where the training reports that made the adapter in use: of three stages, the last training."""
    return run.adapter if "merge" not in _json(run.adapter / REPORT_FILE) else run.stage(FINETUNE).adapter


def _training_of(run: RunFolder) -> EncoderTraining | None:
    return cast("EncoderTraining | None", _json(_trained_folder(run) / REPORT_FILE).get("train"))


def _timings(run: RunFolder, tasks: Sequence[Task]) -> dict[str, float]:
    """Seconds of each stage, over all tasks."""
    folders = [folder for task in tasks for folder in (task.dataset, task.negatives, task.evaluation)]
    seconds: dict[str, float] = {}
    for folder in (run.made_pairs, *folders, run.adapter):
        for name, value in _json(folder / REPORT_FILE).get("timings", {}).items():
            seconds[name] = round(seconds.get(name, 0.0) + value, 3)
    order = ("pairs_s", "prepare_s", "mine_s", "train_s")
    return {name: seconds[name] for name in (*(it for it in order if it in seconds), *seconds)}


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _untimed(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "timings"}
