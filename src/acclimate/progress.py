"""Progress of long work: a bar with a rate and an ETA on a terminal, a line every half minute elsewhere.

Everything goes to standard error, so that standard output holds results only. Of several processes only the first one
prints.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from acclimate import processes
from acclimate.counting import singular

PLAIN_INTERVAL_S = 30.0


class Advance(Protocol):
    """Reports `amount` more units done, optionally with a short note (a loss, a score)."""

    def __call__(self, amount: float = 1.0, note: str = "") -> None: ...


def say(message: str) -> None:
    """Print one line for the user."""
    if processes.is_main():
        print(message, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: float, unit: str, done: float = 0.0) -> Iterator[Advance]:
    """Show the progress of `total` units of work, `done` of which were done before (a resumed run).

    Args:
        label: what is being done; empty shows nothing.
        total: units of work in all.
        unit: the unit's name for the rate, e.g. "tokens".
        done: units done in an earlier start.
    """
    if not label or not processes.is_main():
        yield _silent
    elif sys.stderr.isatty():
        yield from _bar(label, total, unit, done)
    else:
        yield from _lines(label, total, unit, done)


def _silent(amount: float = 1.0, note: str = "") -> None:
    """Report nothing."""


def _bar(label: str, total: float, unit: str, done: float) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, emoji=False), transient=False) as bar:
        task = bar.add_task(label, total=total, completed=int(done), rate="", note="")
        started, count = time.monotonic(), 0.0

        def advance(amount: float = 1.0, note: str = "") -> None:
            nonlocal count
            count += amount
            rate = count / max(time.monotonic() - started, 1e-9)
            bar.update(task, advance=amount, rate=_speed(rate, unit), note=note or bar.tasks[task].fields["note"])

        yield advance


def _lines(label: str, total: float, unit: str, done: float) -> Iterator[Advance]:
    started, count = time.monotonic(), 0.0
    last = started

    def advance(amount: float = 1.0, note: str = "") -> None:
        nonlocal count, last
        count += amount
        now = time.monotonic()
        if now - last < PLAIN_INTERVAL_S or not count:
            return
        last = now
        rate = count / (now - started)
        left = timedelta(seconds=round((total - done - count) / rate))
        share = 100 * (done + count) / max(total, 1e-9)
        say(f"{label}: {share:.0f} %, {_speed(rate, unit)}, ETA {left} {note}".rstrip())

    yield advance


def _speed(rate: float, unit: str) -> str:
    """Units per second; seconds per unit where these are longer than a second; nothing while nothing is done."""
    if not rate:
        return ""
    if rate >= 1:
        return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"
    return f"{1 / rate:.1f} s/{singular(unit)}"
