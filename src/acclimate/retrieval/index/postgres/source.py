"""Where a document's parts are in a table: in our own, and in one that somebody else made and was adopted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql

from acclimate.core.filters import Metadata, Scalar, Value
from acclimate.errors import StorageError, UsageError
from acclimate.retrieval.index.header import Adopted, Header
from acclimate.retrieval.index.postgres.connection import PostgresPlace
from acclimate.retrieval.index.postgres.filters import Clause
from acclimate.retrieval.index.postgres.tables import Names

OPERATORS = {"ip": "<#>", "cosine": "<=>", "l2": "<->"}
"""What an index over vectors is made for -> the operator that it answers. pgvector's `<#>` is the negative product."""
SCORES = {"ip": "-({0})", "cosine": "1 - ({0})", "l2": "1 - ({0}) ^ 2 / 2"}
"""The product of two unit vectors out of each operator's value."""


@dataclass(frozen=True, slots=True)
class Source:
    """The SQL of a document's parts. `table` is read under the name `d`."""

    table: sql.Composable
    id: sql.Composable
    text: sql.Composable
    metadata: sql.Composable
    rest: sql.Composable
    """parent, start and end of a chunk."""
    vector: sql.Composable
    type: str
    """vector or halfvec."""
    metric: str
    """A key of `OPERATORS`."""
    columns: frozenset[str] | None
    """Whose values are metadata; None where metadata are one column of jsonb."""

    def clause(self) -> Clause:
        """Return an empty condition over these metadata."""
        if self.columns is None:
            return Clause(sql.SQL("d.metadata"))
        return Clause(self._column)

    def _column(self, name: str) -> sql.Composable:
        if name not in (self.columns or ()):
            return sql.SQL("NULL::jsonb")
        return sql.SQL("to_jsonb({})").format(sql.Identifier("d", name))

    def distance(self, parameter: str) -> sql.Composable:
        """The distance of the vector from a parameter, as the table's index knows it."""
        operator = sql.SQL(OPERATORS[self.metric])
        given = sql.SQL("{}::{}").format(sql.Placeholder(parameter), sql.SQL(self.type))
        return sql.SQL("({} {} {})").format(self.vector, operator, given)

    def score(self, distance: sql.Composable) -> sql.Composable:
        """The inner product out of the distance."""
        return sql.SQL(SCORES[self.metric]).format(distance)


def source_of(connection: Connection[Any], place: PostgresPlace, header: Header) -> Source:
    """Say where the parts of an index's documents are."""
    if header.adopted is None:
        table = sql.SQL("{} AS d").format(Names(place).table)
        names = [sql.Identifier("d", name) for name in ("id", "text", "metadata", "vector")]
        rest = sql.SQL("d.parent, d.start_character, d.end_character")
        return Source(table, names[0], names[1], names[2], rest, names[3], "halfvec", "ip", None)
    return _foreign(connection, place, header, header.adopted)


def _foreign(connection: Connection[Any], place: PostgresPlace, header: Header, adopted: Adopted) -> Source:
    relation = Names(place).table.as_string(connection)
    types = dict(
        connection.execute(
            """SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
               WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped""",
            (relation,),
        ).fetchall()
    )
    for name in (adopted.text_field, adopted.vector_field):
        if name not in types or "%" in name:
            raise UsageError(f"{place} has no column {name!r}", possible=", ".join(types) or "a table that is there")
    kind = str(types[adopted.vector_field]).rpartition(".")[2]
    if kind not in ("vector", "halfvec"):
        raise UsageError(f"{place}: the column {adopted.vector_field!r} is of type {kind}", possible="vector, halfvec")
    _check_dimensions(connection, place, relation, header)
    keys = connection.execute(
        """SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
           WHERE i.indrelid = to_regclass(%s) AND i.indisprimary""",
        (relation,),
    ).fetchall()
    if len(keys) != 1:
        raise StorageError(
            f"{place}: the table has no primary key of one column, so its documents have no ids",
            fix="Add one: ALTER TABLE … ADD COLUMN id bigserial PRIMARY KEY.",
        )
    left_out = [adopted.text_field, adopted.vector_field]
    return Source(
        # A row without a vector is not in the index.
        table=sql.SQL("(SELECT * FROM {} WHERE {} IS NOT NULL) AS d").format(
            Names(place).table, sql.Identifier(adopted.vector_field)
        ),
        id=sql.SQL('({}::text COLLATE "C")').format(sql.Identifier("d", keys[0][0])),
        text=sql.SQL("COALESCE({}::text, '')").format(sql.Identifier("d", adopted.text_field)),
        metadata=sql.SQL("to_jsonb(d) - {}::text[]").format(sql.Literal(left_out)),
        rest=sql.SQL("NULL, NULL, NULL"),
        vector=sql.Identifier("d", adopted.vector_field),
        type=kind,
        metric=_metric(connection, relation, adopted.vector_field),
        # psycopg would take a percent sign for the beginning of a placeholder.
        columns=frozenset(name for name in types if name not in left_out and "%" not in name),
    )


def _check_dimensions(connection: Connection[Any], place: PostgresPlace, relation: str, header: Header) -> None:
    """Refuse a column that is declared for other dimensions; one that is declared for none is known by its rows."""
    row = connection.execute(
        "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s",
        (relation, header.adopted.vector_field if header.adopted else ""),
    ).fetchone()
    if row is not None and row[0] not in (-1, header.space.dim):
        raise UsageError(
            f"{place}: the column's vectors have {row[0]} dimensions", possible=f"{header.space.dim}, the model's"
        )


def _metric(connection: Connection[Any], relation: str, column: str) -> str:
    """What the index over a column of vectors is made for; cosine where there is none, or one for something else."""
    rows = connection.execute(
        """SELECT o.opcname FROM pg_index i JOIN pg_opclass o ON o.oid = i.indclass[0]
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
           WHERE i.indrelid = to_regclass(%s) AND a.attname = %s""",
        (relation, column),
    )
    found = [str(name).split("_")[1] for (name,) in rows if str(name).startswith(("vector_", "halfvec_"))]
    return next((name for name in found if name in OPERATORS), "cosine")


def metadata_out(values: Mapping[str, Any]) -> Metadata:
    """Metadata out of a row: values, and lists of values; what is neither, in somebody else's table, is left out."""
    found: dict[str, Value] = {}
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        if items and all(isinstance(item, str | int | float | bool) for item in items):
            found[name] = tuple(map(_scalar, value)) if isinstance(value, list) else _scalar(value)
    return found


def _scalar(value: Scalar) -> Scalar:
    """A value as it was written: jsonb gives 1e300 back with all its digits, as a whole number."""
    return float(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value
