"""Files in SQLite: many processes may make and open one at the same time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from acclimate.core.analyser import Analyser
from acclimate.errors import AcclimateError
from acclimate.feedback.store import FeedbackStore
from acclimate.retrieval.index.local.store import Store
from acclimate.sqlite_file import SqliteFile
from tests.retrieval.index.contract import SPACE

ROUNDS = 30
MAKERS = 3
Opened = Callable[[Path, bool], SqliteFile]


def index(folder: Path, create: bool) -> SqliteFile:
    return Store(folder / "index", create=(SPACE, Analyser()) if create else None)


def feedback(folder: Path, create: bool) -> SqliteFile:
    folder.mkdir(exist_ok=True)
    return FeedbackStore(folder / "feedback.sqlite", create=create)


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Let threads take turns so often that they meet in the middle of each other's steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("opened", [index, feedback])
@pytest.mark.usefixtures("quick_switches")
def test_several_make_the_same_file_while_another_looks_for_it(tmp_path: Path, opened: Opened) -> None:
    for number in range(ROUNDS):
        assert not failures_of_a_round(tmp_path / str(number), opened)
        opened(tmp_path / str(number), False).close()


def failures_of_a_round(folder: Path, opened: Opened) -> list[AcclimateError]:
    failures = []
    made = threading.Event()
    start = threading.Barrier(MAKERS + 1)

    def look() -> None:
        start.wait()
        while not made.is_set():
            with suppress(AcclimateError):  # it is not there yet
                opened(folder, False).close()

    def make() -> None:
        start.wait()
        try:
            opened(folder, True).close()
        except AcclimateError as error:
            failures.append(error)

    makers = [threading.Thread(target=make) for _ in range(MAKERS)]
    looking = threading.Thread(target=look)
    for thread in [*makers, looking]:
        thread.start()
    for thread in makers:
        thread.join()
    made.set()
    looking.join()
    return failures
