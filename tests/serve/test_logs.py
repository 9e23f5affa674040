"""Lines of the log: JSON, and one write for all that one turn of the event loop has to say."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from acclimate.serve.logs import LOGGER, log, log_to_stderr

NAMES = ("acclimate.serve", "uvicorn.error", "asyncio")


class Stream:
    """Standard error, as a list of what was written at once."""

    def __init__(self) -> None:
        self.writes: list[str] = []

    def write(self, text: str) -> None:
        self.writes.append(text)

    def flush(self) -> None:
        """Nothing waits."""

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in "".join(self.writes).splitlines()]


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    import logging

    stream, loggers = Stream(), [logging.getLogger(name) for name in NAMES]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for name in ("logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, True)
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_stderr()
    yield stream
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_one_turn_of_a_loop_is_one_write(stream: Stream) -> None:
    async def replies() -> None:
        for turn in range(2):
            for number in range(3):
                log("request", number=3 * turn + number)
            await asyncio.sleep(0.01)

    asyncio.run(replies())
    assert len(stream.writes) == 2
    assert [line["number"] for line in stream.lines()] == list(range(6))
    assert {"time", "level", "event"} < set(stream.lines()[0])


def test_what_another_thread_says_is_written_at_once(stream: Stream) -> None:
    thread = threading.Thread(target=lambda: log("drained", finished=True))
    thread.start()
    thread.join()
    log("ready")
    assert [line["event"] for line in stream.lines()] == ["drained", "ready"]


def test_a_failure_has_its_traceback_and_any_fact_can_be_said(stream: Stream) -> None:
    try:
        raise ValueError("so it is")
    except ValueError as error:
        log("failed", level=40, error=error, path="/\udcff", number=1 << 70, kind=Stream)
    (line,) = stream.lines()
    assert "ValueError: so it is" in line["traceback"] and line["level"] == "error"
    assert line["number"] == 1 << 70 and line["path"] == "/\udcff" and "Stream" in line["kind"]


def test_where_nobody_reads_it_nothing_fails(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(text: str) -> None:
        raise BrokenPipeError(text)

    monkeypatch.setattr(stream, "write", closed)
    log("ready")
    assert LOGGER.handlers[0].formatter is not None
