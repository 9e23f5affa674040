"""The decisions about what was learned from feedback: a row for each, in the order in which they fell.

A refresh is decided when its `judged` folder is whole; what is left to do then (to switch, to write the row) is done by
the next refresh where a kill came between.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from acclimate.files import REPORT_FILE, discard, held, iter_jsonl, storage_errors, work_folder, write_text
from acclimate.ownership import is_listed
from acclimate.runs.run_folder import RunFolder

Outcome: TypeAlias = Literal["promoted", "kept aside", "rolled back"]
KEPT = 5
"""Candidates, and versions before the present one, that stay on disk."""


class Decision(TypedDict):
    """One row of the history."""

    time: str
    """UTC."""
    outcome: Outcome
    reason: str
    before: str
    """The version that was in use."""
    version: str
    """The version that was decided about; after a rollback, the one that is in use again."""
    number: NotRequired[int]
    """The refresh's; a rollback has none."""
    until: NotRequired[int]
    """The number of the last mark that the refresh knew of."""
    measured: NotRequired[dict[str, Any]]
    """What it rests on: "gate", "guard", "later"; and "test", which decided nothing."""


def decisions(run: RunFolder) -> list[Decision]:
    """All decisions of a run, the oldest first."""
    if not run.decisions.is_file() or not run.decisions.stat().st_size:
        return []
    return [line.value for line in iter_jsonl(run.decisions) if line.value is not None]  # type: ignore[misc]


def record(run: RunFolder, decision: Decision) -> None:
    """Add a decision, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors(run.decisions), held(work_folder(run.refreshes) / "lock", run.refreshes):
        run.refreshes.mkdir(parents=True, exist_ok=True)
        rows = [*decisions(run), decision]
        write_text(run.decisions, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def now() -> str:
    """The time, as a decision has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def decided_until(run: RunFolder) -> int:
    """The number of the last mark that has been a part of a decision; 0 where none has."""
    return max((row.get("until", 0) for row in decisions(run)), default=0)


def open_refresh(run: RunFolder) -> int:
    """The number of the refresh that is to be worked on: one that was interrupted, or a new one."""
    done = {row["number"] for row in decisions(run) if "number" in row}
    begun = [int(folder.name) for folder in run.refreshes.glob("[0-9]*") if folder.is_dir()]
    return next((number for number in sorted(begun) if number not in done), max([0, *done, *begun]) + 1)


def tidy(run: RunFolder) -> None:
    """Delete what is bulky of refreshes that are decided: the data of all but the last, candidates beyond the last few.

    What was measured stays.
    """
    done = sorted({row["number"] for row in decisions(run) if "number" in row})
    for number in done[:-1]:
        refresh = run.refresh(number)
        for bulky in (refresh.dataset, refresh.negatives, refresh.steps):
            _delete(bulky)
    for number in done[:-KEPT]:
        refresh = run.refresh(number)
        for candidate in (refresh.adapter, *refresh.adapters.glob("*/")):
            _delete(candidate)


def _delete(folder: Path) -> None:
    """Delete an artifact: a kill leaves it whole, or nothing where it was."""
    gone = work_folder(folder) / "gone"
    shutil.rmtree(gone, ignore_errors=True)
    if folder.is_dir() and not folder.is_symlink() and is_listed(folder):
        gone.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    else:
        discard(folder, folder)
    for emptied in (gone.parent, gone.parent.parent):
        with suppress(OSError):  # something else is there
            emptied.rmdir()


def judged_report(refresh: RunFolder) -> Path:
    """Where a refresh says how its candidate did."""
    return refresh.judged / REPORT_FILE
