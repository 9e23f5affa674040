"""Real queries of users: for the proof only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acclimate.data.columns import texts_of
from acclimate.data.names import ANCHORS, POSITIVES, QRELS, TEXTS
from acclimate.data.records import BadRowError
from acclimate.data.tables import read_table
from acclimate.errors import DataError
from acclimate.types import Rejected

DOCUMENTS = ("document", *QRELS["document"])
"""Columns that may hold the id of the document that answers a query."""


@dataclass
class RealQueries:
    """What users have asked."""

    by_document: dict[str, list[str]] = field(default_factory=dict)
    """Document id -> queries that it answers, wherever in it."""
    answered: list[tuple[str, str]] = field(default_factory=list)
    """(query, text that answers it)."""
    alone: list[str] = field(default_factory=list)
    """Queries of which nobody says what answers them."""

    @property
    def count(self) -> int:
        """How many queries there are."""
        judged = {query for queries in self.by_document.values() for query in queries}
        return len(judged | {query for query, _ in self.answered} | set(self.alone))


def read_real_queries(path: Path) -> RealQueries:
    """Read real queries from any table, with or without what answers them; a row without a query is skipped.

    Raises:
        DataError: no row has a query.
    """
    found = RealQueries()
    first = ""
    for row in read_table(path, path.name):
        if isinstance(row, Rejected):
            first = first or f"row {row.row}: {row.reason}"
            continue
        values = {str(name).strip().lower(): value for name, value in row.values.items()}
        try:
            queries = _texts(values, (*ANCHORS, *TEXTS))
            positives = _texts(values, POSITIVES)
        except BadRowError as error:
            first = first or f"row {row.row}: {error}"
            continue
        documents = _ids(values)
        for query in queries[:1]:
            for document in documents:
                found.by_document.setdefault(document, []).append(query)
            found.answered += [(query, text) for text in positives]
            if not (documents or positives):
                found.alone.append(query)
    if not found.count:
        raise DataError(
            f"{path}: no query in it" + (f"; {first}" if first else ""),
            possible=f"a column {', '.join(ANCHORS[:3])} or text; and, where it is known, {', '.join(DOCUMENTS[:3])} "
            f"with the id of a document, or {', '.join(POSITIVES[:3])} with the text that answers it",
        )
    return found


def _texts(values: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    """The texts of the first of the columns that is there."""
    name = next((name for name in names if values.get(name) not in (None, "")), None)
    return [] if name is None else [text for text in texts_of(values[name], name, Counter()) if text]


def _ids(values: Mapping[str, Any]) -> list[str]:
    name = next((name for name in DOCUMENTS if values.get(name) not in (None, "")), None)
    if name is None:
        return []
    value = values[name]
    return [str(item).strip() for item in (value if isinstance(value, list) else [value])]
