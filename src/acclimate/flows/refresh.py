"""`refresh`: from feedback to a candidate, judged, and promoted only where it is shown to be better.

One try is a folder `RUN/refreshes/NUMBER`. Killed at any moment, the next start goes on with the same try and the same
marks; what is in use is the old version or the new one, whole.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from acclimate.configs import RunConfig
from acclimate.errors import StorageError, UsageError
from acclimate.feedback.store import FeedbackStore
from acclimate.files import CONFIG_FILE, locked, read_json
from acclimate.flows.index_switch import check_can_move, index_of_version, only_task
from acclimate.flows.record import refresh as bring_up_to_date
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.progress import say
from acclimate.runs import versions
from acclimate.runs.refreshes import (
    KEPT,
    Decision,
    decided_until,
    decisions,
    judged_report,
    now,
    open_refresh,
    record,
    tidy,
)
from acclimate.runs.resolve import adapter_folder
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task, tasks_of
from acclimate.stages.mine import mine
from acclimate.stages.refresh_data import PARTS_FILE, TAUGHT_FILE, Snapshot, refresh_data
from acclimate.stages.refresh_judge import refresh_judge
from acclimate.stages.refresh_steps import refresh_steps
from acclimate.stages.train import train_tasks


def refresh(run: Path, config: RunConfig) -> Decision:
    """Learn from the feedback of a run, and promote what comes of it if it is better.

    Args:
        run: with a dataset, an adapter and feedback.
        config: the whole run.

    Returns:
        the decision, which is also the last row of `RUN/refreshes/decisions.jsonl`.

    Raises:
        DataError: too little feedback.
        UsageError: a run that cannot be refreshed.
        StorageError: another process is at work in it.
    """
    folder = RunFolder(run)
    with locked(run):
        number = open_refresh(folder)
        part = folder.refresh(number)
        if not judged_report(part).is_file():
            _try(folder, part, config)
        return _settle(folder, part, number, config)


def _try(folder: RunFolder, part: RunFolder, config: RunConfig) -> None:
    """Make a candidate and judge it."""
    task = only_task(folder, config)
    before = _version_in_use(folder, task)
    adapter = load_adapter(before, config.model)
    learned = refresh_data(task, part, before, _snapshot(folder, part), config)
    config = _settings(task.config, adapter, before, learned["learning_rate"])
    mine(part.dataset, part.negatives, config)
    refresh_steps(part, part.dataset / TAUGHT_FILE, config)
    gate = frozenset(read_json(part.dataset / PARTS_FILE)["gate"])
    trained = Task(None, config, part, part.dataset, part.steps, arranged=True, aside=gate)
    train_tasks([trained], part.adapter, config)
    refresh_judge(task, part, before, part.dataset / PARTS_FILE, config)


def _settle(folder: RunFolder, part: RunFolder, number: int, config: RunConfig) -> Decision:
    """Do what was decided: all of it can be done again where a kill came between."""
    judged = read_json(judged_report(part))
    decision: Decision = {
        "time": now(),
        "outcome": "kept aside",
        "reason": judged["reason"],
        "before": judged["before"],
        "version": judged["version"],
        "number": number,
        "until": _until_of(part) or 0,
        "measured": {name: judged[name] for name in ("gate", "guard", "later", "test")},
    }
    if judged["promotes"]:
        in_use = versions.in_use_now(folder)
        if in_use in (judged["before"], judged["version"]):
            versions.take(folder, part.adapter)
            with index_of_version(only_task(folder, config), judged["version"]) as publish:
                versions.promote(folder, judged["version"])
                publish()
            in_use = judged["version"]
        if in_use == judged["version"]:
            decision["outcome"] = "promoted"
        else:
            decision["reason"] = f"{in_use} has come into use meanwhile, and it was not compared with that"
    record(folder, decision)
    tidy(folder)
    made = [row["version"] for row in decisions(folder) if row["outcome"] == "promoted"]
    versions.forget(folder, made, kept=KEPT)
    if decision["outcome"] == "promoted":
        bring_up_to_date(folder)
    say(f"refresh {number}: {decision['outcome']}: {decision['reason']}")
    return decision


def rollback(run: Path, config: RunConfig) -> Decision:
    """Let the version before the present one be in use again, at once: also while a refresh is at work.

    Of an adapter that changes documents the index goes back too: what has come into it since is encoded first.

    Raises:
        UsageError: there is none.
        StorageError: another process writes the index that has to go back.
    """
    folder = RunFolder(run)
    before = versions.in_use_now(folder)
    tasks = tasks_of(run, replace(config, task=None))
    alone = len(tasks) == 1
    with (
        index_of_version(tasks[0], versions.before_present(folder).name) if alone else nullcontext(_nothing) as publish
    ):
        back = versions.rollback(folder)
        publish()
    decision: Decision = {
        "time": now(),
        "outcome": "rolled back",
        "reason": "somebody said so",
        "before": str(before),
        "version": back.name,
    }
    record(folder, decision)
    try:
        with locked(run):
            bring_up_to_date(folder)
    except StorageError:
        say(f"{folder.page} is brought up to date by what is at work in {run}")
    return decision


def _nothing() -> None:
    """What is left to do where no index goes with the adapter."""


def _version_in_use(folder: RunFolder, task: Task) -> Path:
    """The adapter that the refresh goes on from.

    Raises:
        UsageError: a whole model; an adapter that changes documents, whose index is on a server.
        StorageError: there is none.
    """
    name = versions.in_use_now(folder)
    if name is None:
        raise StorageError(f"{folder.path} holds no adapter", fix=f"Make one with: acclimate train {folder.path}")
    found = folder.adapters / name
    if adapter_folder(found) is None:
        raise UsageError(f"{folder.adapter} is a whole model", possible="an adapter, which a refresh can go on from")
    if load_adapter(found).sides != "query":
        check_can_move(task)
    return found


def _settings(config: RunConfig, adapter: Adapter, before: Path, learning_rate: float) -> RunConfig:
    """The run's settings, with what goes on from the adapter in use: it also mines."""
    train = replace(
        config.train,
        start_adapter=str(before),
        sides=adapter.sides,
        full=False,
        rank=adapter.rank,
        alpha=adapter.alpha,
        epochs=1.0,
        learning_rate=learning_rate,
        remine_steps=None,
    )
    mined = replace(config.mine, teacher=str(before), output="n-tuple")
    return replace(config, train=train, mine=mined, stages=replace(config.stages, recipe="one-stage"))


def _snapshot(folder: RunFolder, part: RunFolder) -> Snapshot:
    """All marks that there are; of a try that was interrupted, those that it began with."""
    until = _until_of(part)
    if until is None:
        store = FeedbackStore(folder.feedback, read_only=True)
        until = store.seq
        store.close()
    return Snapshot(until, decided_until(folder))


def _until_of(part: RunFolder) -> int | None:
    path = part.dataset / CONFIG_FILE
    return int(read_json(path)["until"]) if path.is_file() else None
