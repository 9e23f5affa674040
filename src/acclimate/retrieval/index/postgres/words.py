"""Words of an index in Postgres: which documents hold a query's terms, ranked by BM25 in the server.

A document is a candidate if it holds one of the query's rarer terms (a GIN index over the array of its terms finds
it); its score counts all of them. Score and constants are those of `retrieval.bm25`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import Connection, sql

from acclimate.retrieval.bm25 import K1, B
from acclimate.retrieval.index.postgres.tables import Names

MAX_TERM_BYTES = 200
"""An entry of an index over terms has less than 2,704 bytes; a longer term is kept as a part and a hash."""
CANDIDATES = 50_000
"""Documents that are scored for a query, at most, unless its rarest term alone has more: common terms beyond it find no
documents of their own, they only add to the scores."""


class Counted(NamedTuple):
    """A document's terms as they are kept: each once, in their order, with its count."""

    terms: list[str]
    counts: list[int]
    length: int
    """All terms, repeated ones as often as they stand in the text."""


def counted(terms: Sequence[str]) -> Counted:
    """Count a text's terms."""
    counts = Counter(map(kept, terms))
    ordered = sorted(counts)
    return Counted(ordered, [counts[term] for term in ordered], len(terms))


def kept(term: str) -> str:
    """A term as it is kept."""
    data = term.encode()
    if len(data) <= MAX_TERM_BYTES:
        return term
    return f"{data[:100].decode(errors='ignore')}…{hashlib.sha256(data).hexdigest()}"


def add(connection: Connection[Any], names: Names, changes: Mapping[str, int], documents: int, terms: int) -> None:
    """Add to the number of documents of each term, and to those of all documents and terms; negative ones take away."""
    changed = sorted(term for term, change in changes.items() if change)
    connection.execute(
        sql.SQL(
            """INSERT INTO {0} AS kept SELECT * FROM unnest(%s::text[], %s::bigint[])
               ON CONFLICT (term) DO UPDATE SET documents = kept.documents + excluded.documents"""
        ).format(names.terms),
        (changed, [changes[term] for term in changed]),
    )
    connection.execute(
        sql.SQL("UPDATE {} SET documents = documents + %s, terms = terms + %s WHERE name = %s").format(names.register),
        (documents, terms, names.place.table),
    )


def ranked(
    connection: Connection[Any], names: Names, query: Sequence[str], where: sql.Composable, values: Mapping[str, Any],
    top_k: int,
) -> list[tuple[str, float]]:  # fmt: skip
    """The best documents of a query by BM25, equal scores by id.

    Args:
        connection: to the server.
        names: of the index's tables.
        query: its terms.
        where: a condition that documents must meet, and
        values: of its placeholders.
        top_k: documents to return.
    """
    counts = Counter(map(kept, query))
    statement = sql.SQL("SELECT documents, terms FROM {} WHERE name = %s").format(names.register)
    row = connection.execute(statement, (names.place.table,)).fetchone()
    documents, terms = row if row is not None else (0, 0)
    holding = dict(
        connection.execute(
            sql.SQL("SELECT term, documents FROM {} WHERE term = ANY(%s) AND documents > 0").format(names.terms),
            (list(counts),),
        ).fetchall()
    )
    if not holding or not documents:
        return []
    weights = {
        term: counts[term] * math.log1p((documents - number + 0.5) / (number + 0.5)) for term, number in holding.items()
    }
    found = connection.execute(
        sql.SQL(
            """SELECT id, score FROM (
                SELECT id, (
                    SELECT sum(asked.weight * d.counts[place] / (d.counts[place] + %(fixed)s + %(grows)s * d.length))
                    FROM unnest(%(terms)s::text[], %(weights)s::float8[]) AS asked(term, weight),
                         LATERAL array_position(d.terms, asked.term) AS place
                    WHERE place IS NOT NULL
                ) AS score
                FROM {} AS d WHERE terms && %(rare)s::text[] AND ({})
            ) AS scored ORDER BY score DESC, id LIMIT %(top_k)s"""
        ).format(names.table, where),
        {
            **values,
            "terms": list(weights),
            "weights": list(weights.values()),
            "rare": _rare(holding),
            "fixed": K1 * (1 - B),
            "grows": K1 * B * documents / max(terms, 1),
            "top_k": top_k,
        },
    )
    return [(identifier, float(score)) for identifier, score in found]


def _rare(holding: Mapping[str, int]) -> list[str]:
    """The rarest terms, as many as have `CANDIDATES` documents together; at least one."""
    chosen: list[str] = []
    total = 0
    for term in sorted(holding, key=lambda term: (holding[term], term)):
        total += holding[term]
        if chosen and total > CANDIDATES:
            break
        chosen.append(term)
    return chosen
