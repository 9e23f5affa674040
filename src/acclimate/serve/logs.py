"""One JSON object a line on standard error; never a text, a vector or a key."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import sys
import traceback
from typing import Any, TextIO

import orjson

LOGGER = logging.getLogger("acclimate.serve")


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:
    """Write one line.

    Args:
        event: what happened, in a word or two.
        level: of `logging`.
        error: its traceback is written too.
        facts: what else there is to say, as JSON.
    """
    LOGGER.log(level, event, extra={"facts": facts}, exc_info=error)


class _AsJson(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        said = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        said |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[1] is not None:
            said["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        try:
            return orjson.dumps(said, default=str).decode()
        except TypeError:  # a name that is not valid Unicode, or a number beyond 64 bits
            return json.dumps(said, default=str)


class _Lines(logging.Handler):
    """Writes to a stream; what one turn of an event loop has to say, it writes at once.

    Each write lets another thread run, which then keeps the interpreter for a while: a batch of replies would wait for
    the models after every line.

    Args:
        stream: of text.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        self._waiting.append(self.format(record) + "\n")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if len(self._waiting) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            lines, self._waiting = self._waiting, []
            with contextlib.suppress(OSError, ValueError):  # nobody reads them any more
                self._stream.write("".join(lines))
                self._stream.flush()
        finally:
            self.release()


def log_to_stderr() -> None:
    """Send our lines, and what uvicorn and asyncio have to say, to standard error."""
    # Who and where is in no line of ours, and costs as much as all the rest of one.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = _Lines(sys.stderr)
    handler.setFormatter(_AsJson())
    for name, level in ((LOGGER.name, logging.INFO), ("uvicorn.error", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
