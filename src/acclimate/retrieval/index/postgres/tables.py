"""Tables of an index in Postgres, and what is recorded about them.

`TABLE` has a row per document: its text, metadata as jsonb, vector as halfvec, and its terms with their counts.
`TABLE_terms` counts the documents of every term, for BM25. `acclimate_indexes`, one per schema, has a row per index:
the header, and how many documents and terms there are; every write updates it in its own transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from acclimate.core.analyser import Analyser
from acclimate.errors import StorageError, UsageError
from acclimate.retrieval.index.header import ADOPT_IT, Header
from acclimate.retrieval.index.pictures import PICTURE, PROJECTION
from acclimate.retrieval.index.postgres.connection import PostgresPlace
from acclimate.text_use import SpaceId

REGISTER = "acclimate_indexes"
LINKS = 16
EF_CONSTRUCTION = 200
"""The graph's links per row and its candidates while it is built: HNSW's m and ef_construction."""
IS_PICTURE = sql.SQL("metadata ? {} AND metadata ? {}").format(sql.Literal(PICTURE), sql.Literal(PROJECTION))
"""As `pictures.PICTURES` has it: of what an index keeps, no field is null."""
MAX_DIM = 4000
"""Dimensions of a halfvec that pgvector can index."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of an index's tables, quoted."""

    place: PostgresPlace

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(self.place.schema, self.place.table)

    @property
    def terms(self) -> sql.Identifier:
        return sql.Identifier(self.place.schema, f"{self.place.table}_terms")

    @property
    def register(self) -> sql.Identifier:
        return sql.Identifier(self.place.schema, REGISTER)

    def index(self, what: str) -> sql.Identifier:
        """The name of one of the table's indexes, which Postgres puts into the table's schema."""
        return sql.Identifier(f"{self.place.table}_{what}")


def exists(connection: Connection[Any], place: PostgresPlace, table: str) -> bool:
    """Whether a table, or a view, of this name is in the place's schema."""
    found = connection.execute(
        """SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = %s AND c.relname = %s""",
        (place.schema, table),
    )
    return found.fetchone() is not None


def lock(connection: Connection[Any], place: PostgresPlace) -> None:
    """Wait until no other transaction writes this index, and keep others waiting until this one ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{place.schema}.{place.table}",))


def read_header(connection: Connection[Any], place: PostgresPlace) -> Header | None:
    """Read what is recorded about an index; None where there is no table of the name.

    Raises:
        StorageError: there is a table, of which nothing is recorded, or something damaged or of a newer release.
    """
    row = None
    if exists(connection, place, REGISTER):
        statement = sql.SQL("SELECT header FROM {} WHERE name = %s").format(Names(place).register)
        row = connection.execute(statement, (place.table,)).fetchone()
    if row is not None:
        return Header.from_json(row[0], str(place))
    if exists(connection, place, place.table):
        raise StorageError(
            f"{place}: the table does not say which model its vectors are of",
            fix=ADOPT_IT,
        )
    return None


def refuse_own(connection: Connection[Any], place: PostgresPlace) -> None:
    """Refuse to adopt a table that we made, or that is not there; one that was adopted may be adopted again.

    Raises:
        UsageError: it is our own, or there is none.
    """
    if not exists(connection, place, place.table):
        raise UsageError(f"{place}: there is no table of this name", possible="…?schema=SCHEMA&table=TABLE")
    own = (
        exists(connection, place, REGISTER)
        and connection.execute(
            sql.SQL("SELECT 1 FROM {} WHERE name = %s AND header -> 'adopted' = 'null'").format(Names(place).register),
            (place.table,),
        ).fetchone()
    )
    if own:
        raise UsageError(f"{place}: the index is our own, there is nothing to adopt", fix="Search it as it is.")


def make(connection: Connection[Any], place: PostgresPlace, space: SpaceId, analyser: Analyser | None) -> Header:
    """Make the tables of an index, without the graph over its vectors, if they are not there; return its header."""
    if space.dim > MAX_DIM:
        raise UsageError(
            f"vectors of {space.dim} dimensions in Postgres", possible=f"up to {MAX_DIM}", fix="Use a smaller --dim."
        )
    names = Names(place)
    header = Header(space, analyser or Analyser())
    with connection.transaction():
        # One name for all that make an index here: two that make the register at once would collide.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (REGISTER,))
        if (there := read_header(connection, place)) is not None:
            return there
        record(connection, place, header)
        connection.execute(
            sql.SQL(
                """CREATE TABLE {} (
                    id text COLLATE "C" PRIMARY KEY, text text NOT NULL, metadata jsonb NOT NULL,
                    parent text, start_character bigint, end_character bigint, vector halfvec({}) NOT NULL,
                    terms text[] NOT NULL, counts integer[] NOT NULL, length integer NOT NULL
                )"""
            ).format(names.table, sql.Literal(space.dim))
        )
        connection.execute(
            sql.SQL('CREATE TABLE {} (term text COLLATE "C" PRIMARY KEY, documents bigint NOT NULL)').format(
                names.terms
            )
        )
        for what, method in (("terms_gin", "gin (terms)"), ("metadata_gin", "gin (metadata jsonb_path_ops)")):
            statement = sql.SQL("CREATE INDEX {} ON {} USING " + method)
            connection.execute(statement.format(names.index(what), names.table))
        index_pictures(connection, place)
    return header


def make_graph(connection: Connection[Any], place: PostgresPlace) -> None:
    """Make the graph over the vectors, if it is not there; over many rows it is made much faster than row by row."""
    names = Names(place)
    connection.execute(
        sql.SQL(
            """CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (vector halfvec_ip_ops)
               WITH (m = {}, ef_construction = {})"""
        ).format(names.index("vector_hnsw"), names.table, sql.Literal(LINKS), sql.Literal(EF_CONSTRUCTION))
    )


def index_pictures(connection: Connection[Any], place: PostgresPlace) -> None:
    """Let the server keep which rows are pictures, if it does not: then a table without some is told from one with."""
    names = Names(place)
    connection.execute(
        sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} (id) WHERE {}").format(
            names.index("pictures"), names.table, IS_PICTURE
        )
    )


def has_pictures(connection: Connection[Any], place: PostgresPlace) -> bool:
    """Whether some row is a picture."""
    statement = sql.SQL("SELECT EXISTS (SELECT 1 FROM {} WHERE {})").format(Names(place).table, IS_PICTURE)
    row = connection.execute(statement).fetchone()
    return row is not None and bool(row[0])


def record(connection: Connection[Any], place: PostgresPlace, header: Header) -> None:
    """Record what is to say about an index, in place of what was."""
    register = Names(place).register
    connection.execute(
        sql.SQL(
            """CREATE TABLE IF NOT EXISTS {} (
                name text PRIMARY KEY, header jsonb NOT NULL, documents bigint NOT NULL, terms bigint NOT NULL
            )"""
        ).format(register)
    )
    connection.execute(
        sql.SQL(
            "INSERT INTO {} VALUES (%s, %s, 0, 0) ON CONFLICT (name) DO UPDATE SET header = excluded.header"
        ).format(register),
        (place.table, Jsonb(header.to_json())),
    )
