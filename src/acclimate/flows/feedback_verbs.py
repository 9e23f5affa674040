"""The commands about feedback as Python functions: `from acclimate import import_feedback, refresh, rollback`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, check_settings
from acclimate.data.dataset import load_dataset
from acclimate.feedback.exchange import export_file, import_file
from acclimate.feedback.position import examination
from acclimate.feedback.store import FeedbackStore, Present
from acclimate.files import iter_jsonl, write_jsonl
from acclimate.flows.settings import Config, configured, measuring
from acclimate.ownership import called, check_replaceable, commanded
from acclimate.report.result import Result
from acclimate.runs.run_folder import RunFolder, is_run
from acclimate.runs.tasks import Task, one_task
from acclimate.types import Queries, Rejected

SHARES = 5
"""Ranks of which it is told how often they are looked at."""


def feedback_info(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Describe a run's feedback.

    Args:
        run: the run's folder.
        config: see `Config`.
        settings: `index_at`, where the documents are.

    Returns:
        "counts" of impressions, marks, users and queries; "examined": how often places are looked at, as far as
        swaps tell: "severity" with its standard "error", by so many "clicks", and "shares" of the first ranks; or None.
    """
    task = _task(run, config, settings)
    with closing(FeedbackStore(task.folder.feedback, read_only=True)) as store:
        found = examination(store.pair_clicks())
        examined = None if found is None else {**dataclasses.asdict(found), "shares": found.shares(SHARES)}
        return Result({"counts": store.counts(), "examined": examined}, store.path)


def import_feedback(
    run: str | Path, file: str | Path, *, user: str | None = None, config: Config = None, **settings: Any
) -> Result:
    """Read impressions and marks into a run's feedback.

    Args:
        run: the run's folder.
        file: JSONL of impressions and marks, or TREC qrels.
        user: who has judged, for qrels.
        config: see `Config`.
        settings: `index_at`, where the documents are.

    Returns:
        "impressions", "marks", "repeated", "rejected" (reason -> rows), and "rejected_rows", the file of these.
    """
    task = _task(run, config, settings)
    with commanded(by=called("import_feedback", run, file, user=user)):
        return Result(_imported(task, Path(file), user), task.folder.feedback)


def export_feedback(run: str | Path, file: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Write a run's feedback to a file that is not there yet.

    Args:
        run: the run's folder.
        file: .jsonl for everything; or an extension of qrels, for the judgements on which users agree.
        config: see `Config`.
        settings: `index_at`, where the documents are.

    Returns:
        how much was written.
    """
    task, out = _task(run, config, settings), Path(file)
    check_replaceable(out, lambda there: f"{there} is there", option="--export")
    with closing(FeedbackStore(task.folder.feedback, read_only=True)) as store:
        return Result(export_file(store, out, _queries(task)), out)


def refresh(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Learn from a run's feedback, and promote what comes of it only if it is shown to be better.

    Args:
        run: the run's folder, with an adapter; where that changes documents, its index goes with it.
        config: see `Config`; what it does not say is as the run was trained.
        settings: such as `refresh_steps=30`.

    Returns:
        the decision: "outcome", "reason", "before", "version", "measured".
    """
    effective = refreshing(run, config, settings)
    from acclimate.flows.refresh import refresh as flow

    with commanded(by=called("refresh", run, config=config, **settings)):
        return Result(flow(Path(run), effective), RunFolder(Path(run)).adapter)


def refreshing(run: str | Path, config: Config, settings: dict[str, Any]) -> RunConfig:
    """The settings of a refresh: those of the run, and what is given."""
    check_settings("refresh", settings)
    return measuring("refresh", settings, config, Path(run))


def rollback(run: str | Path) -> Result:
    """Let the version of the adapter before the present one be in use again, and record that.

    Args:
        run: the run's folder.

    Returns:
        "before" and "version", which is in use now.
    """
    from acclimate.flows.refresh import rollback as flow

    with commanded(by=called("rollback", run)):
        return Result(flow(Path(run), configured("rollback", {}, None, Path(run))), RunFolder(Path(run)).adapter)


def _task(run: str | Path, config: Config, settings: dict[str, Any]) -> Task:
    return one_task(Path(run), configured("feedback", settings, config, Path(run)))


def _imported(task: Task, path: Path, user: str | None) -> dict[str, Any]:
    check_replaceable(task.folder.not_imported, _not_rejected, option="run")
    with closing(FeedbackStore(task.folder.feedback, create=True)) as store:
        report, rejected = import_file(store, path, queries=_queries(task), present=_present(task), user=user)
    rows: str | None = None
    if rejected:
        rows = str(task.folder.not_imported)
        write_jsonl(task.folder.not_imported, map(dataclasses.asdict, rejected))
    return {**report, "rejected_rows": rows}


def _queries(task: Task) -> Queries:
    """The run's own queries, whose ids qrels may name."""
    return load_dataset(task.dataset).queries if is_run(task.folder.path) else {}


def _present(task: Task) -> Present | None:
    """Finds documents in the run's corpus and its index; None where it has neither."""
    from acclimate.retrieval.index.of_run import has_index, index_place, opened_index

    corpus = set(load_dataset(task.dataset).corpus) if is_run(task.folder.path) else set()
    if not has_index(task):
        return (lambda ids: corpus.intersection(ids)) if corpus else None

    def present(ids: Sequence[str]) -> set[str]:
        with opened_index(index_place(task)) as index:
            return corpus.intersection(ids) | set(index.get(ids))

    return present


def _not_rejected(path: Path) -> str:
    row = next((line.value for line in iter_jsonl(path)), None) if path.is_file() else None
    ours = row is not None and set(row) == {field.name for field in dataclasses.fields(Rejected)}
    return "" if ours else f"{path} was not written by acclimate"
