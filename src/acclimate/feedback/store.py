"""Impressions and marks in one SQLite file, `RUN/feedback.sqlite`: one writer at a time, readers beside it.

Rows are only added. What has returned is on the disk. A mark that is sent twice is stored once; a judgement that takes
an earlier one back is stored beside it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from acclimate.core.same_text import same_text_key
from acclimate.errors import StorageError
from acclimate.feedback.position import PairClicks
from acclimate.feedback.records import (
    ANYBODY,
    CLICK,
    EXPLICIT,
    Impression,
    Mark,
    Reason,
    Refused,
    StoredMark,
    problem,
)
from acclimate.sqlite_file import Kind, SqliteFile

SCHEMA = """
CREATE TABLE impressions (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, query TEXT NOT NULL,
    shown TEXT NOT NULL, adapter TEXT NOT NULL, space TEXT NOT NULL, epoch INTEGER, pair INTEGER);
CREATE TABLE marks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, impression TEXT NOT NULL, query TEXT NOT NULL,
    document TEXT NOT NULL, mark TEXT NOT NULL, user TEXT NOT NULL, rank INTEGER);
CREATE INDEX marks_same ON marks (user, query, document);
"""
_IMPRESSION = "id, at, query, shown, adapter, space, epoch, pair"
_SAME = 'SELECT mark FROM marks WHERE "user" = ? AND query = ? AND document = ?'

Present = Callable[[Sequence[str]], set[str]]
"""Ids of documents -> those that are there."""


class Added(NamedTuple):
    """What became of some marks."""

    stored: int
    repeated: int
    """Were there already, from the same user."""
    refused: list[Refused]


class FeedbackStore(SqliteFile):
    """A connection to the file. One thread at a time may use it.

    Args:
        path: `RUN/feedback.sqlite`.
        create: make it where there is none.
        read_only: nothing is written; other processes may write meanwhile.

    Raises:
        StorageError: it is not there, cannot be read or made, or a later version has written it.
        UsageError: it is a database of something else.
    """

    KIND = Kind(
        application=0x41434C46,
        version=1,
        schema=SCHEMA,
        foreign=("", "Move it away."),
        nothing=("holds no feedback", "Remove it."),
        advice={
            "malformed": "Export what can be read, or bring back a copy.",
            "not a database": "Move the file away.",
        },
        otherwise="Make the folder writable.",
    )

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        if not (create or path.is_file()):
            raise StorageError(
                f"{path}: there is no feedback", fix="Serve the run with --feedback, or bring some with --import FILE."
            )
        super().__init__(path, "rwc" if create else "ro" if read_only else "rw")

    def add_impressions(self, impressions: Iterable[Impression]) -> int:
        """Store what searches have shown, all or none; return how many were new."""
        with self.transaction():
            before = self._count("impressions")
            self.db.executemany(
                f"INSERT OR IGNORE INTO impressions ({_IMPRESSION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (one.id, one.at, one.query, shown, one.adapter, one.space, one.epoch, one.pair)
                    for one in impressions
                    for shown in [json.dumps(one.shown, ensure_ascii=False)]
                ),
            )
            return self._count("impressions") - before

    def add_marks(self, marks: Sequence[Mark], present: Present | None = None) -> Added:
        """Store marks; those that cannot be are named, and the others stored all or none.

        Args:
            marks: what came in.
            present: finds the documents that are there; None: whether a document is there is not known.
        """
        there = None if present is None else present(list(dict.fromkeys(mark.id for mark in marks)))
        refused: list[Refused] = []
        stored = repeated = 0
        with self.transaction():
            known = self._impressions({mark.impression_id for mark in marks if mark.impression_id is not None})
            for index, mark in enumerate(marks):
                if (reason := problem(mark) or _misplaced(mark, known, there)) is not None:
                    refused.append(Refused(index, reason))
                elif self._insert(mark, known):
                    stored += 1
                else:
                    repeated += 1
        return Added(stored, repeated, refused)

    def _insert(self, mark: Mark, known: Mapping[str, Impression]) -> bool:
        """Write a mark; False where it says nothing new."""
        query, rank = mark.query or "", None
        if mark.impression_id is not None:
            impression = known[mark.impression_id]
            query, rank = impression.query, impression.shown.index(mark.id) + 1
        of_user, impression_id = (mark.user or ANYBODY, query, mark.id), mark.impression_id or ""
        if mark.mark in EXPLICIT:
            last = self.db.execute(f"{_SAME} AND mark IN (?, ?) ORDER BY seq DESC LIMIT 1", (*of_user, *EXPLICIT))
        else:
            last = self.db.execute(f"{_SAME} AND mark = ? AND impression = ?", (*of_user, mark.mark, impression_id))
        if last.fetchone() == (mark.mark,):
            return False
        at = time.time() if mark.at is None else mark.at
        self.db.execute(
            'INSERT INTO marks ("user", query, document, at, impression, mark, rank) VALUES (?, ?, ?, ?, ?, ?, ?)',
            (*of_user, at, impression_id, mark.mark, rank),
        )
        return True

    def known(self, impressions: Iterable[str]) -> set[str]:
        """Return those of the ids that impressions have."""
        return set(self.impressions_of(impressions))

    def impressions(self) -> Iterator[Impression]:
        """All impressions, in the order in which they were stored."""
        with self._errors():
            for values in self.db.execute(f"SELECT {_IMPRESSION} FROM impressions ORDER BY row"):
                yield _impression(values)

    def marks(self, until: int | None = None) -> Iterator[StoredMark]:
        """All marks, the oldest first.

        Args:
            until: the `seq` of the last one.
        """
        with self._errors():
            for values in self.db.execute(
                'SELECT seq, m.at, m.query, document, mark, "user", impression, rank, pair, space FROM marks AS m '
                "LEFT JOIN impressions AS i ON i.id = impression WHERE seq <= ? ORDER BY seq",
                (self.seq if until is None else until,),
            ):
                seq, at, query, document, mark, user, impression, *rest = values
                yield StoredMark(seq, at, query, document, mark, user, impression or None, *rest)

    @property
    def seq(self) -> int:
        """The number of the last mark; 0 where there is none."""
        with self._errors():
            return int(self.db.execute("SELECT coalesce(max(seq), 0) FROM marks").fetchone()[0])

    def marks_after(self, seq: int) -> int:
        """How many marks came after one."""
        with self._errors():
            return int(self.db.execute("SELECT count(*) FROM marks WHERE seq > ?", (seq,)).fetchone()[0])

    def counts(self) -> dict[str, int]:
        """How many impressions, randomised ones, marks (in all and by name), users and queries there are."""
        with self._errors():
            random = self.db.execute("SELECT count(*) FROM impressions WHERE pair IS NOT NULL").fetchone()[0]
            users = self.db.execute('SELECT count(DISTINCT "user") FROM marks').fetchone()[0]
            by_name = dict(self.db.execute("SELECT mark, count(*) FROM marks GROUP BY mark ORDER BY mark"))
            queries = {same_text_key(text) for (text,) in self.db.execute("SELECT DISTINCT query FROM marks")}
        found = {"impressions": self._count("impressions"), "impressions in random order": random}
        return found | {"marks": self._count("marks"), **by_name, "users": users, "queries": len(queries)}

    def pair_clicks(self, until: int | None = None) -> list[PairClicks]:
        """Clicks on both places of the pairs that were put in random order, by user and pair.

        Args:
            until: the `seq` of the last mark that counts.
        """
        with self._errors():
            rows = self.db.execute(
                'SELECT "user", pair, sum(rank = pair), sum(rank = pair + 1) '
                "FROM marks JOIN impressions ON id = impression "
                'WHERE mark = ? AND rank IN (pair, pair + 1) AND seq <= ? GROUP BY "user", pair',
                (CLICK, self.seq if until is None else until),
            ).fetchall()
        return [PairClicks(user, pair, int(upper), int(lower)) for user, pair, upper, lower in rows]

    def impressions_of(self, ids: Iterable[str]) -> dict[str, Impression]:
        """Find impressions by their ids; unknown ones are not in it."""
        with self._errors():
            return self._impressions(set(ids))

    def _impressions(self, ids: Iterable[str]) -> dict[str, Impression]:
        rows = self.db.execute(
            f"SELECT {_IMPRESSION} FROM (SELECT value FROM json_each(?)) JOIN impressions ON id = value",
            (json.dumps(sorted(ids)),),
        )
        return {values[0]: _impression(values) for values in rows}

    def _count(self, table: str) -> int:
        return int(self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _misplaced(mark: Mark, known: Mapping[str, Impression], there: set[str] | None) -> Reason | None:
    """What is wrong with a mark beside what is stored."""
    if mark.impression_id is not None:
        impression = known.get(mark.impression_id)
        if impression is None:
            return "unknown impression"
        if mark.query is not None and same_text_key(mark.query) != same_text_key(impression.query):
            return "another query than the impression's"
        if mark.id not in impression.shown:
            return "not shown by the impression"
    return None if there is None or mark.id in there else "no such document"


def _impression(values: Sequence[object]) -> Impression:
    identifier, at, query, shown, *rest = values
    return Impression(identifier, at, query, tuple(json.loads(str(shown))), *rest)  # type: ignore[arg-type]
