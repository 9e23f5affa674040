"""The backend `pgvector`: an index in a table of Postgres, for those whose documents live there."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from pgvector import HalfVector, Vector
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from acclimate.core.analyser import Analyser
from acclimate.core.filters import Filter
from acclimate.errors import UsageError
from acclimate.retrieval.index.header import Header, refuse_adopted
from acclimate.retrieval.index.postgres import tables, words
from acclimate.retrieval.index.postgres.connection import PostgresPlace, connect, parse_postgres_url, postgres_errors
from acclimate.retrieval.index.postgres.filters import number
from acclimate.retrieval.index.postgres.source import Source, metadata_out, source_of
from acclimate.retrieval.index.postgres.tables import Names
from acclimate.retrieval.index.records import (
    TIES,
    Document,
    Hit,
    IndexInfo,
    Query,
    Stored,
    Vectors,
    check_rows,
    check_space,
    fused,
    searched_vector,
)
from acclimate.text_use import SpaceId

EXACT_ROWS = 10_000
"""Documents that pass a filter, up to which all of them are compared: exact, and as fast as the graph."""
SETTINGS = {
    # Candidates in the graph; a search with a filter goes on from there until enough rows have passed it.
    "hnsw.ef_search": "400",
    "hnsw.iterative_scan": "strict_order",
    "hnsw.max_scan_tuples": "1000000",
    "hnsw.scan_mem_multiplier": "8",
    "maintenance_work_mem": "256MB",
    # Compiling a statement takes longer than these take to run.
    "jit": "off",
}
PAGE = 500


def open_postgres(url: str, space: SpaceId | None, analyser: Analyser | None, *, graph: bool = True) -> PostgresIndex:
    """Open the index at a url of Postgres, or make it: see `opening.open_index` and `PostgresIndex.open`."""
    return PostgresIndex.open(parse_postgres_url(url), space, analyser, graph=graph)


def adopt_postgres(url: str, header: Header) -> PostgresIndex:
    """Open somebody else's table as if it were what a header says."""
    return PostgresIndex.adopting(parse_postgres_url(url), header)


class PostgresIndex:
    """Documents as rows of a table. Threads take turns; writers of several processes wait for each other."""

    def __init__(self, place: PostgresPlace, connection: Connection[Any], header: Header, exact_rows: int) -> None:
        self.place = place
        self.header = header
        self.exact_rows = exact_rows
        self._names = Names(place)
        self._keeps_pictures = False
        self._connection = connection
        self._lock = threading.RLock()
        self._source: Source = source_of(connection, place, header)

    @classmethod
    def open(
        cls, place: PostgresPlace, space: SpaceId | None = None, analyser: Analyser | None = None, *,
        graph: bool = True, exact_rows: int = EXACT_ROWS,
    ) -> PostgresIndex:  # fmt: skip
        """Open the index of a place, or make one of the space.

        Args:
            place: where the table is.
            space: of the encoder; None opens what is there.
            analyser: how texts become words, of an index that is made.
            graph: make the graph over the vectors with it; `publish` makes it later, which is faster for many rows.
            exact_rows: see `EXACT_ROWS`.

        Raises:
            UsageError: there is none, and no space to make one for; or it is of another space.
            StorageError: the server does not answer; the table is not ours.
        """
        connection = _session(place)
        try:
            with postgres_errors(place):
                header = tables.read_header(connection, place)
                if header is None:
                    if space is None:
                        raise UsageError(f"{place}: there is no index", fix="Make one: acclimate index RUN --at URL")
                    header = tables.make(connection, place, space, analyser)
                    if graph:
                        tables.make_graph(connection, place)
                if space is not None:
                    check_space(header.space, space, str(place))
                return cls(place, connection, header, exact_rows)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def adopting(cls, place: PostgresPlace, header: Header) -> PostgresIndex:
        """Open somebody else's table as if it were what a header says.

        Raises:
            UsageError: there is none, it has no such columns, or it is our own.
            StorageError: the server does not answer; the table has no primary key of one column.
        """
        connection = _session(place)
        try:
            with postgres_errors(place):
                tables.refuse_own(connection, place)
                return cls(place, connection, header, EXACT_ROWS)
        except BaseException:
            connection.close()
            raise

    def record(self, header: Header) -> None:
        """Record a header in the schema's register."""
        self.header = header
        with self._server() as server, server.transaction():
            tables.record(server, self.place, header)

    def sample(self, count: int) -> list[Stored]:
        """Return some documents, drawn by chance."""
        drawn = sql.SQL("SELECT {} FROM {} ORDER BY random() LIMIT %s").format(self._source.id, self._source.table)
        with self._server() as server:
            ids = [name for (name,) in server.execute(drawn, (count,))]
        return list(self.get(ids).values())

    def publish(self) -> None:
        """Make the graph over the vectors, if it is not there: until then every search compares them all."""
        with self._server() as server:
            tables.make_graph(server, self.place)

    @property
    def space(self) -> SpaceId:
        return self.header.space

    @property
    def analyser(self) -> Analyser:
        return self.header.analyser

    def upsert(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write documents, in one transaction."""
        self._refuse_to_write("nothing can be written")
        rows = check_rows(documents, vectors, self.space)
        if not documents:
            return
        found = [words.counted(self.analyser.terms(document.text)) for document in documents]
        with self._server() as server, server.transaction():
            tables.lock(server, self.place)
            if not self._keeps_pictures:  # a table that an earlier release has made
                tables.index_pictures(server, self.place)
            changes, gone, gone_terms = self._remove(server, [document.id for document in documents])
            for one in found:
                changes.update(one.terms)
            statement = sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s, %b, %s, %s, %s)").format(
                self._names.table
            )
            with server.cursor() as cursor:
                cursor.executemany(statement, map(_row, documents, rows, found))
            terms = sum(one.length for one in found)
            words.add(server, self._names, changes, len(documents) - gone, terms - gone_terms)
        self._keeps_pictures = True

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents; return how many of them were there."""
        self._refuse_to_write("nothing can be removed")
        with self._server() as server, server.transaction():
            tables.lock(server, self.place)
            changes, gone, gone_terms = self._remove(server, list(dict.fromkeys(ids)))
            words.add(server, self._names, changes, -gone, -gone_terms)
        return gone

    def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        """Return those of the documents that are there, by id."""
        where = sql.SQL("{} = ANY(%(ids)s)").format(self._source.id)
        with self._server() as server:
            rows = self._read(server, where, {"ids": list(ids)}, vectors=True)
        return {stored.document.id: stored for stored in map(_stored, rows)}

    def search(self, query: Query) -> list[Hit]:
        """Return the documents that answer a query, best first, equal scores by id."""
        clause = self._source.clause()
        where = sql.SQL("TRUE") if query.filter is None else clause.write(query.filter)
        dense: dict[str, float] = {}
        lexical: dict[str, float] = {}
        if query.mode != "dense":
            self._refuse_to_write(f"there is no {query.mode} search")
        with self._server() as server:
            if query.mode != "lexical":
                dense = self._dense(server, query, where, clause.values)
            if query.mode != "dense":
                terms = self.analyser.terms(query.text or "")
                lexical = dict(words.ranked(server, self._names, terms, where, clause.values, query.depth))
            scores = dict(fused(query, dense, lexical))
            chosen = sql.SQL("{} = ANY(%(ids)s)").format(self._source.id)
            rows = self._read(server, chosen, {"ids": list(scores)}, vectors=False)
        documents = {row[0]: _document(row) for row in rows}
        return [Hit(documents[name], score) for name, score in scores.items() if name in documents]

    def count(self, filter: Filter | None = None) -> int:
        """Return how many documents there are, or pass the filter."""
        clause = self._source.clause()
        where = sql.SQL("TRUE") if filter is None else clause.write(filter)
        statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self._source.table, where)
        with self._server() as server:
            row = server.execute(statement, clause.values).fetchone()
        return int(row[0]) if row is not None else 0

    def has_pictures(self) -> bool:
        """Whether it holds pictures; a table that an earlier release has made is read for it until it is written to."""
        if self.header.adopted is not None:
            return False
        with self._server() as server:
            return tables.has_pictures(server, self.place)

    def iterate(self, after: str | None = None) -> Iterator[Stored]:
        """Give all documents in the order of their ids, page by page."""
        while True:
            where = sql.SQL("TRUE") if after is None else sql.SQL("{} > %(after)s").format(self._source.id)
            with self._server() as server:
                rows = self._read(server, where, {"after": after}, vectors=True, limit=PAGE)
            yield from map(_stored, rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    @property
    def state(self) -> str | None:
        """None: others write there too, and nothing counts their changes."""
        return None

    def info(self) -> IndexInfo:
        """Return what there is to say about it."""
        details = {"adopted": dataclasses.asdict(self.header.adopted)} if self.header.adopted else {}
        return IndexInfo("pgvector", str(self.place), self.count(), self.space, details)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._connection.close()

    @contextmanager
    def _server(self) -> Iterator[Connection[Any]]:
        """The connection, for one thread; a new one where the server was gone in between."""
        with self._lock, postgres_errors(self.place):
            if self._connection.broken:
                self._connection = _session(self.place)
            yield self._connection

    def _refuse_to_write(self, what: str) -> None:
        if self.header.adopted is not None:
            raise refuse_adopted(str(self.place), what)

    def _remove(self, server: Connection[Any], ids: Sequence[str]) -> tuple[Counter[str], int, int]:
        """Delete rows; return the change of every term's documents, how many rows there were, and their terms."""
        statement = sql.SQL("DELETE FROM {} WHERE id = ANY(%s) RETURNING terms, length").format(self._names.table)
        changes: Counter[str] = Counter()
        rows = server.execute(statement, (list(ids),)).fetchall()
        for terms, _ in rows:
            changes.subtract(terms)
        return changes, len(rows), sum(length for _, length in rows)

    def _read(
        self, server: Connection[Any], where: sql.Composable, values: Mapping[str, Any], *, vectors: bool,
        limit: int | None = None,
    ) -> list[tuple[Any, ...]]:  # fmt: skip
        """Rows of id, text, metadata, parent, start, end and, if wanted, the vector, in the order of the ids."""
        source = self._source
        vector = source.vector if vectors else sql.SQL("NULL")
        statement = sql.SQL("SELECT {}, {}, {}, {}, {} FROM {} WHERE {} ORDER BY 1 LIMIT {}").format(
            source.id, source.text, source.metadata, source.rest, vector, source.table, where, sql.Literal(limit)
        )
        return server.execute(statement, values, binary=True).fetchall()

    def _dense(
        self, server: Connection[Any], query: Query, where: sql.Composable, values: Mapping[str, Any]
    ) -> dict[str, float]:
        """The best documents by inner product: of few all are compared, of many those that the graph leads to."""
        vector = searched_vector(query, self.space)
        source = self._source
        distance = source.distance("vector")
        given = {
            **values,
            "vector": HalfVector(vector) if source.type == "halfvec" else Vector(vector),
            "limit": query.depth + TIES,
        }
        few = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} LIMIT %(least)s) AS passing")
        row = server.execute(few.format(source.table, where), {**values, "least": self.exact_rows + 1}).fetchone()
        # MATERIALIZED keeps the planner from the graph, which it would also take for a filter that few rows pass.
        all_compared = sql.SQL(
            """WITH chosen AS MATERIALIZED (SELECT {} AS id, {} AS distance FROM {} WHERE {})
               SELECT id, {} FROM chosen ORDER BY distance, id LIMIT %(limit)s"""
        ).format(source.id, distance, source.table, where, source.score(sql.SQL("distance")))
        by_graph = sql.SQL("SELECT {}, {} FROM {} WHERE {} ORDER BY {} LIMIT %(limit)s").format(
            source.id, source.score(distance), source.table, where, distance
        )
        is_small = row is not None and row[0] <= self.exact_rows
        found = server.execute(all_compared if is_small else by_graph, given).fetchall()
        ordered = sorted(((name, float(score)) for name, score in found), key=lambda item: (-item[1], item[0]))
        return dict(ordered[: query.depth])


def _session(place: PostgresPlace) -> Connection[Any]:
    connection = connect(place)
    # A statement that is prepared is planned once for all filters, whatever share of the rows they leave.
    connection.prepare_threshold = None
    with postgres_errors(place):
        for name, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    return connection


def _row(document: Document, vector: Vectors, found: words.Counted) -> tuple[Any, ...]:
    metadata = {
        name: [number(item) for item in value] if isinstance(value, tuple) else number(value)
        for name, value in document.metadata.items()
    }
    return (
        document.id, document.text, Jsonb(metadata), document.parent, document.start, document.end,
        HalfVector(vector), found.terms, found.counts, found.length,
    )  # fmt: skip


def _document(row: tuple[Any, ...]) -> Document:
    identifier, text, metadata, parent, start, end = row[:6]
    return Document(identifier, text, metadata_out(metadata), parent, start, end)


def _stored(row: tuple[Any, ...]) -> Stored:
    return Stored(_document(row), row[6].to_numpy().astype(np.float32))
