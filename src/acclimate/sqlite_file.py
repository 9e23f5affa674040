"""A SQLite file of ours: marked, made as a whole, changed in whole transactions that reach the disk before they return.

Several processes may open it, or make it, at the same time; SQLite's errors become ours.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from acclimate.errors import StorageError, UsageError
from acclimate.files import storage_errors

BUSY_TIMEOUT_S = 30.0
POLL_S = 0.01
NOTHING_LOST = "and start again: nothing that was acknowledged is lost."
_ADVICE = {
    "full": f"Free some space {NOTHING_LOST}",
    "disk I/O": f"Free some space, or check the disk, {NOTHING_LOST}",
    "locked": "Wait until the other process is done.",
}
_HEADER = """SELECT (SELECT user_version FROM pragma_user_version),
    (SELECT application_id FROM pragma_application_id), EXISTS (SELECT 1 FROM sqlite_master)"""
"""One statement: what it reads is of one moment, though another process may be making the file."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of file is, and what to say where it is something else."""

    application: int
    """Marks the file as ours, in SQLite's header."""
    version: int
    schema: str
    foreign: tuple[str, str]
    """A database that is not ours: what follows from it, what to do."""
    nothing: tuple[str, str]
    """A file that holds nothing: what it is not, what to do."""
    advice: Mapping[str, str]
    """A part of what SQLite says -> what to do, beside what is said of every file."""
    otherwise: str = ""
    """What to do where SQLite says anything else."""
    older: tuple[str, str] = ("made by an earlier acclimate", "")
    """An earlier version: who made it, what to do."""


class SqliteFile:
    """A connection to a SQLite file of ours. One thread at a time may use it; each sees what is committed.

    Args:
        path: the file.
        mode: rwc makes it where there is none; rw writes into one that is there; ro reads.
        subject: what messages call it, if not by its path.

    Raises:
        StorageError: it cannot be read or made, or a later version has written it.
        UsageError: it is a database of something else.
    """

    KIND: ClassVar[Kind]

    def __init__(self, path: Path, mode: Literal["rwc", "rw", "ro"], subject: str = "") -> None:
        self.path = path
        self._subject = subject or str(path)
        with storage_errors(path), self._errors():
            self.db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY_TIMEOUT_S,
            )
            try:
                self._prepare(mode)
            except BaseException:
                self.db.close()
                raise

    def _fill(self) -> None:
        """Write what a new file holds, in the transaction that makes it."""

    def _prepare(self, mode: Literal["rwc", "rw", "ro"]) -> None:
        kind = self.KIND
        version, application, holds_something = self.db.execute(_HEADER).fetchone()
        if application != kind.application and holds_something:
            therefore, fix = kind.foreign
            raise UsageError(f"{self.path} is a database of something else{therefore}", fix=fix)
        found = f"{self._subject} has the file version {version}"
        if version > kind.version:
            raise StorageError(
                f"{found}, made by a later acclimate",
                possible=f"versions up to {kind.version}",
                fix="Upgrade acclimate.",
            )
        if 0 < version < kind.version:
            made_by, fix = kind.older
            raise StorageError(f"{found}, {made_by}", possible=f"version {kind.version}", fix=fix)
        if version == 0 and mode != "rwc":
            is_not, fix = kind.nothing
            raise StorageError(f"{self.path} {is_not}", fix=fix)
        self.db.execute("PRAGMA synchronous = FULL")
        if mode != "ro":
            self._write_ahead()
        if version == 0:
            self._make()

    def _write_ahead(self) -> None:
        """Let readers read while one writes. SQLite does not wait for others in this change of a new file: we do."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self.db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_S)

    def _make(self) -> None:
        with self.transaction():
            if self.db.execute("PRAGMA user_version").fetchone()[0]:
                return  # Another process was faster.
            for statement in self.KIND.schema.split(";"):
                self.db.execute(statement)
            self._fill()
            self.db.execute(f"PRAGMA application_id = {self.KIND.application}")
            self.db.execute(f"PRAGMA user_version = {self.KIND.version}")

    @contextmanager
    def transaction(self, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
        """Do what is inside as one change, or (DEFERRED) read one state; the disk's errors become ours."""
        with self._errors():
            self.db.execute(f"BEGIN {kind}")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._storage_error(str(error)) from None

    def _storage_error(self, said: str) -> StorageError:
        advice = {**_ADVICE, **self.KIND.advice}
        fix = next((fix for part, fix in advice.items() if part in said), self.KIND.otherwise)
        return StorageError(f"{self._subject}: {said}", fix=fix)
