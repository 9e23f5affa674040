"""The truth of a local index: one SQLite file, written in whole transactions that reach the disk before they return.

Every change of a row has a number, `seq`, which only grows; a deletion leaves the row's number and its own `seq`. So
"all that changed after N" is a query, and what is derived from the store can catch up from any N.

Shapes: N rows, D dimensions.
"""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acclimate.core.analyser import Analyser
from acclimate.errors import UsageError
from acclimate.files import WORK, storage_errors
from acclimate.ownership import LEFT_BY_SYSTEMS, check_replaceable
from acclimate.retrieval.index.pictures import PICTURE, PROJECTION
from acclimate.retrieval.index.records import Document, Stored, Vectors, metadata_json, metadata_of
from acclimate.sqlite_file import Kind, SqliteFile
from acclimate.text_use import SpaceId

FILE = "documents.sqlite"
CACHE_KIB = 32_768
"""Pages that a connection keeps; the inner ones of two million rows fit in."""
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    row INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL,
    parent TEXT, start INTEGER, "end" INTEGER, text TEXT NOT NULL);
CREATE INDEX documents_seq ON documents (seq);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE deletions (row INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE INDEX deletions_seq ON deletions (seq);
"""
PICTURES_INDEX = "documents_pictures"
_IS_PICTURE = " AND ".join(f"json_extract(metadata, '$.{name}') IS NOT NULL" for name in (PICTURE, PROJECTION))
"""As `pictures.PICTURES` has it: of what an index keeps, no field is null."""
_OF_AN_INDEX = re.compile(rf"{re.escape(FILE)}(-wal|-shm|-journal)?|(dense|lexical|fields)-\d+|{re.escape(WORK)}")
_VECTORS = "JOIN vectors USING (row)"
_COLUMNS = 'id, text, metadata, parent, start, "end", vector'
_UPSERT = """INSERT INTO documents (seq, id, text, metadata, parent, start, "end") VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, text = excluded.text, metadata = excluded.metadata,
    parent = excluded.parent, start = excluded.start, "end" = excluded."end" RETURNING row"""


def objection(folder: Path) -> str:
    """Object to replacing a folder that holds anything but an index: other files would be lost with it."""
    foreign = sorted(path.name for path in folder.iterdir() if not _OF_AN_INDEX.fullmatch(path.name))
    if foreign := [name for name in foreign if name not in LEFT_BY_SYSTEMS]:
        return f"{folder} holds {foreign[0]}, which acclimate did not write"
    return "" if (folder / FILE).is_file() else f"{folder} holds no index"


class Change(NamedTuple):
    """A row as it is now; all but the first two are None where it was deleted, and the vector where none was wanted."""

    row: int
    seq: int
    text: str | None
    metadata: str | None
    vector: Vectors | None


class Store(SqliteFile):
    """A connection to the file. One thread at a time may use it; each has its own view of what is committed."""

    KIND = Kind(
        application=0x41434C49,
        version=2,
        schema=SCHEMA,
        foreign=(", so nothing is written into it", "Choose another --at, or move it away."),
        nothing=("is not an index", "Make one: acclimate index."),
        advice={
            "readonly": "Make the folder writable, or copy the index elsewhere.",
            "unable to open": "Make the folder writable, or copy the index elsewhere.",
            "malformed": "Take the folder from a backup.",
            "not a database": "Take the folder from a backup.",
        },
        older=(
            "made by an acclimate that did not record all that decides its vectors",
            "Remove it, and index its documents again.",
        ),
    )

    def __init__(self, folder: Path, *, create: tuple[SpaceId, Analyser] | None = None) -> None:
        """Connect to an index's file.

        Args:
            folder: of the index.
            create: space and analyser of a new one, made where there is none.

        Raises:
            StorageError: it cannot be read or made, or a later version has written it.
            UsageError: there is none, or the place holds something else.
        """
        self.folder = folder
        self._new = create
        file = folder / FILE
        with storage_errors(folder):
            if not file.exists():
                if create is None:
                    raise UsageError(
                        f"there is no index at {folder}", fix="Make one: acclimate index RUN corpus.jsonl."
                    )
                # Asked again: another process may have begun to make the index.
                check_replaceable(
                    folder,
                    lambda there: "" if file.exists() else f"{there} holds other things than an index",
                    option="--at",
                )
                folder.mkdir(parents=True, exist_ok=True)
        super().__init__(file, "rw" if create is None else "rwc", f"the index {folder}")
        self.db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        facts = self._facts()
        self.space = SpaceId(**json.loads(facts["space"]))
        self.analyser = Analyser(**json.loads(facts["analyser"]))
        self.identity = facts["identity"]

    def _fill(self) -> None:
        assert self._new is not None, "a file is made only where this is given"
        space, analyser = self._new
        facts = {
            "space": json.dumps(dataclasses.asdict(space)),
            "analyser": json.dumps(dataclasses.asdict(analyser)),
            "identity": uuid.uuid4().hex,
            "seq": "0",
            "documents": "0",
        }
        self.db.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())

    def write(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Write rows, all or none; return the `seq` of the last.

        Args:
            documents: checked, every id once.
            vectors: [N, D].
        """
        halves = vectors.astype(np.float16)
        with self.transaction():
            seq, count = self.seq, self.documents
            rows = []
            for number, one in enumerate(documents, seq + 1):
                metadata = metadata_json(metadata_of(one.metadata))
                values = (number, one.id, one.text, metadata, one.parent, one.start, one.end)
                rows.append(self.db.execute(_UPSERT, values).fetchone()[0])
            known = self.db.execute("SELECT max(row) FROM vectors").fetchone()[0] or 0
            self.db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?)", zip(rows, map(np.ndarray.tobytes, halves), strict=True)
            )
            # A new row's number is above all that were ever given.
            added = sum(row > known for row in rows)
            self._set(seq=seq + len(documents), documents=count + added)
        return seq + len(documents)

    def delete(self, ids: Iterable[str]) -> int:
        """Remove rows, all or none; return how many were there."""
        with self.transaction():
            seq, count = self.seq, self.documents
            gone = 0
            for identifier in ids:
                found = self.db.execute("DELETE FROM documents WHERE id = ? RETURNING row", (identifier,)).fetchone()
                if found is not None:
                    gone += 1
                    self.db.execute("DELETE FROM vectors WHERE row = ?", found)
                    self.db.execute("INSERT INTO deletions VALUES (?, ?)", (found[0], seq + gone))
            self._set(seq=seq + gone, documents=count - gone)
        return gone

    @property
    def seq(self) -> int:
        """The number of the last change."""
        return int(self.db.execute("SELECT value FROM facts WHERE name = 'seq'").fetchone()[0])

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return int(self.db.execute("SELECT value FROM facts WHERE name = 'documents'").fetchone()[0])

    def index_pictures(self) -> None:
        """Let SQLite keep, from now on, which documents are pictures; an index of an earlier release is read once."""
        if not self._keeps_pictures():
            with self.transaction():
                self.db.execute(f"CREATE INDEX IF NOT EXISTS {PICTURES_INDEX} ON documents (row) WHERE {_IS_PICTURE}")

    def has_pictures(self) -> bool | None:
        """Whether there are pictures; None where it is not kept which documents are some."""
        if not self._keeps_pictures():
            return None
        found = f"SELECT EXISTS (SELECT 1 FROM documents INDEXED BY {PICTURES_INDEX} WHERE {_IS_PICTURE})"
        return bool(self.db.execute(found).fetchone()[0])

    def _keeps_pictures(self) -> bool:
        return PICTURES_INDEX in {row[1] for row in self.db.execute("PRAGMA index_list(documents)")}

    def changes(self, after: int, until: int, *, with_vectors: bool = True) -> Iterator[Change]:
        """The rows whose last change is in (after, until], as they are now, in the order of their changes."""
        vector = "(SELECT vector FROM vectors WHERE vectors.row = documents.row)" if with_vectors else "NULL"
        for row, seq, text, metadata, halves in self.db.execute(
            f"""SELECT row, seq, text, metadata, {vector} FROM documents WHERE seq > :after AND seq <= :until
                UNION ALL SELECT row, seq, NULL, NULL, NULL FROM deletions WHERE seq > :after AND seq <= :until
                ORDER BY seq""",
            {"after": after, "until": until},
        ):
            yield Change(row, seq, text, metadata, None if halves is None else _float32(halves))

    def rows(self) -> set[int]:
        """The row numbers of all documents."""
        return {row for (row,) in self.db.execute("SELECT row FROM documents")}

    def vectors(self, block: int) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """The row numbers and the vectors of all documents, so many at a time."""
        cursor = self.db.execute("SELECT row, vector FROM vectors ORDER BY row")
        while found := cursor.fetchmany(block):
            yield np.array([row for row, _ in found], np.int64), self._matrix(vector for _, vector in found)

    def sample(self, count: int) -> Vectors:
        """About so many vectors, evenly spread over the rows."""
        step = max(1, self.documents // count)
        found = self.db.execute("SELECT vector FROM vectors WHERE row % ? = 0", (step,))
        return self._matrix(vector for (vector,) in found)

    def vectors_of(self, rows: Sequence[int]) -> tuple[NDArray[np.int64], Vectors]:
        """The row numbers and the vectors of those of the rows that are there."""
        found = self._select("SELECT row, vector FROM json_each(?) JOIN vectors ON row = value", rows)
        return np.array([row for row, _ in found], np.int64), self._matrix(vector for _, vector in found)

    def ids_of(self, rows: Sequence[int]) -> dict[int, str]:
        """Row number -> id of those of the rows that are there."""
        return dict(
            self._select("SELECT row, id FROM (SELECT value FROM json_each(?)) JOIN documents ON row = value", rows)
        )

    def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        """Those of the documents that are there, by id."""
        select = f"SELECT {_COLUMNS} FROM (SELECT value FROM json_each(?)) JOIN documents ON id = value {_VECTORS}"
        return {values[0]: _stored(values) for values in self._select(select, list(ids))}

    def _select(self, statement: str, values: Sequence[int] | Sequence[str]) -> list[Any]:
        # One statement for all of them: a thousand small ones take longer to call than to run.
        return self.db.execute(statement, (json.dumps(values),)).fetchall()

    def iterate(self, after: str) -> Iterator[Stored]:
        """All documents whose ids come after this one, in the order of their ids."""
        select = f"SELECT {_COLUMNS} FROM documents {_VECTORS} WHERE id > ? ORDER BY id"
        yield from map(_stored, self.db.execute(select, (after,)))

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file, and rows without a vector; empty where all is well."""
        with self._errors():
            found = [line for (line,) in self.db.execute("PRAGMA integrity_check(10)") if line != "ok"]
            alone = "SELECT count(*) FROM documents LEFT JOIN vectors USING (row) WHERE vector IS NULL"
            if lacking := self.db.execute(alone).fetchone()[0]:
                found.append(f"{lacking:,} documents have no vector")
            if (there := self.db.execute("SELECT count(*) FROM documents").fetchone()[0]) != self.documents:
                found.append(f"{there:,} documents are there, {self.documents:,} were counted")
        return found

    def _facts(self) -> dict[str, str]:
        with self._errors():
            return dict(self.db.execute("SELECT name, value FROM facts"))

    def _set(self, **facts: int) -> None:
        self.db.executemany(
            "UPDATE facts SET value = ? WHERE name = ?", [(str(value), name) for name, value in facts.items()]
        )

    def _matrix(self, vectors: Iterable[bytes]) -> Vectors:
        return _float32(b"".join(vectors)).reshape(-1, self.space.dim)


def _stored(values: tuple[Any, ...]) -> Stored:
    identifier, text, metadata, parent, start, end, vector = values
    document = Document(identifier, text, metadata_of(json.loads(metadata)), parent, start, end)
    return Stored(document, _float32(vector))


def _float32(halves: bytes) -> Vectors:
    return np.frombuffer(halves, np.float16).astype(np.float32)
