"""`refresh --watch`: a refresh whenever enough was marked, or on a schedule; one at a time, behind everything else."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from acclimate.configs import RunConfig
from acclimate.errors import AcclimateError
from acclimate.feedback.store import FeedbackStore
from acclimate.flows.refresh import refresh
from acclimate.progress import say
from acclimate.runs.refreshes import decided_until
from acclimate.runs.run_folder import RunFolder

NICE = 10
POLL_S = 5.0
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Due:
    """When a refresh is due."""

    marks: int
    """After so many marks since the last try."""
    hours: float | None
    """Also after so many hours, if anything was marked; None: never for that."""

    def reason(self, marks: int, waited_s: float) -> str:
        """Say why one is due; "" where none is.

        Args:
            marks: that came since the last try.
            waited_s: since then, in seconds.
        """
        if marks >= self.marks:
            return f"{marks:,} new marks"
        if self.hours is not None and marks and waited_s >= self.hours * HOUR_S:
            return f"{self.hours:g} hours, and {marks:,} new marks"
        return ""


def watch(run: Path, config: RunConfig, due: Due) -> None:
    """Refresh a run again and again, until ctrl-C; a try that fails is told, and the next one waits for new marks.

    Args:
        run: with an adapter; feedback may still come.
        config: see `refresh`.
        due: when.
    """
    os.nice(NICE)
    folder = RunFolder(run)
    tried_until, tried_at = decided_until(folder), time.monotonic()
    say(f"watching {folder.feedback}")
    while True:
        seq, new = _marks(folder, tried_until)
        if why := due.reason(new, time.monotonic() - tried_at):
            say(f"refresh: {why}")
            try:
                refresh(run, config)
            except AcclimateError as error:
                say(f"refresh: nothing was changed: {error}")
            tried_until, tried_at = seq, time.monotonic()
        time.sleep(POLL_S)


def _marks(folder: RunFolder, after: int) -> tuple[int, int]:
    """The number of the last mark, and how many came after one."""
    if not folder.feedback.is_file():
        return after, 0
    store = FeedbackStore(folder.feedback, read_only=True)
    try:
        return store.seq, store.marks_after(after)
    finally:
        store.close()
