"""Texts with their topics, from a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.counting import are, counted
from acclimate.data.beir import text_of
from acclimate.data.readers import no_usable_row
from acclimate.data.records import BadRowError, folded, normalise
from acclimate.data.tables import read_table
from acclimate.errors import DataError
from acclimate.progress import say
from acclimate.types import Rejected

TOPIC = "topic"


def read_topics(path: Path) -> dict[str, str]:
    """Read text -> topic from any table with columns `text` (and `title`) and `topic`; BEIR's `metadata` may hold it.

    A text with two topics is left out, as are rows without text or topic; their number and the first reason are
    printed.

    Raises:
        DataError: the file is missing or empty, has no column `topic`, or holds no usable row.
    """
    topics: dict[str, str] = {}
    ambiguous: set[str] = set()
    rejected: list[Rejected] = []
    for row in read_table(path, path.name):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        if (value := _topic(row.values)) is None:
            columns = ", ".join(map(repr, row.values))
            raise DataError(
                f"{path} row {row.row}: no column {TOPIC!r}; columns found: {columns}", possible="text, topic, title?"
            )
        try:
            if not (topic := folded(normalise(value))):
                raise BadRowError("empty (topic)")
            text = text_of(row, {})
        except BadRowError as error:
            rejected.append(row.rejected(str(error)))
            continue
        if topics.setdefault(text, topic) != topic:
            ambiguous.add(text)
    if not topics:
        raise no_usable_row(str(path), rejected)
    if rejected:
        count, first = len(rejected), rejected[0]
        say(f"{path}: {counted(count, 'rows')} {are(count)} not used; the first is row {first.row}: {first.reason}")
    if ambiguous:
        count = len(ambiguous)
        say(f"{path}: {counted(count, 'texts')} with several topics {are(count)} not used")
    return {text: topic for text, topic in topics.items() if text not in ambiguous}


def _topic(values: Mapping[str, Any]) -> str | None:
    """The row's topic as text, empty where it has none; None where there is no such column."""
    if TOPIC in values:
        topic = values[TOPIC]
    elif isinstance(values.get("metadata"), Mapping) and TOPIC in values["metadata"]:
        topic = values["metadata"][TOPIC]
    else:
        return None
    return str(topic) if isinstance(topic, str | int) else ""
