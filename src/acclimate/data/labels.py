"""What a column `label` or `score` beside queries and answers is: degrees of similarity, relevance, or neither.

The same name holds upvotes in one file, a topic in another, and what a judge said of the answer in a third. The values
tell; what was decided is said, and how to decide otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from acclimate.data.records import RawData, Record, folded
from acclimate.types import Rejected

LARGEST_LABEL = 10.0
"""Scales of similarity end at 1, 5 or 10; a column with larger values counts something (votes, views)."""
JUDGED_SHARE = 0.5
"""Values 0 and 1 are relevance if so large a share of the rows has a query with several rows."""


def settle_labels(raw: RawData, column: str) -> RawData:
    """Decide what the column that was read as labels holds, and turn the records into what they are.

    Args:
        raw: pairs; a label that is no number is NaN.
        column: its name, for what is said.

    Returns:
        labelled pairs as they are, less those without a number; or retrieval data, with the labels as grades
        (0 or 1 where queries have several rows), or without them.
    """
    labels = [record.label for record in raw.records if record.label is not None and not math.isnan(record.label)]
    if 2 * len(labels) < len(raw.records):
        return _without_labels(raw, column, "most of its values are no numbers")
    low, high = min(labels), max(labels)
    shown = f"{low:g} to {high:g}"
    if low < 0 or high > LARGEST_LABEL:
        return _without_labels(
            raw, column, f"its values, {shown}, look like counts or ranks, not like a scale of labels"
        )
    if low == high:
        return _without_labels(raw, column, f"every value is {low:g}")
    raw.records, bad = _with_numbers(raw.records, column)
    raw.rejected += bad
    if set(labels) == {0.0, 1.0} and _are_judged(raw.records):
        return _judged(raw, column)
    raw.notes.append(
        f"the column {column!r} (values {shown}) makes these labelled pairs, measured by correlation and not by "
        "search; if the rows are queries and their answers, give --label-column none"
    )
    return raw


def _with_numbers(records: Sequence[Record], column: str) -> tuple[list[Record], list[Rejected]]:
    kept, bad = [], []
    for record in records:
        if record.label is not None and math.isnan(record.label):
            bad.append(record.rejected(f"no number ({column})"))
        else:
            kept.append(record)
    return kept, bad


def _without_labels(raw: RawData, column: str, why: str) -> RawData:
    raw.kind = "retrieval"
    raw.records = [replace(record, label=None) for record in raw.records]
    raw.columns = _renamed(raw.columns, "ignored")
    raw.notes.append(
        f"the column {column!r} is not used as labels ({why}): the rows are queries and their answers; "
        f"if it holds labels, give --label-column {column}"
    )
    return raw


def _are_judged(records: Sequence[Record]) -> bool:
    rows = Counter(folded(record.anchor) for record in records)
    several = sum(count for count in rows.values() if count > 1)
    return several >= JUDGED_SHARE * len(records)


def _judged(raw: RawData, column: str) -> RawData:
    """Labels 0 and 1 of queries with several answers are judgements; a query without a relevant one can teach and test
    nothing."""
    answered = {(record.split, folded(record.anchor)) for record in raw.records if record.label}
    kept: list[Record] = []
    for record in raw.records:
        if (record.split, folded(record.anchor)) in answered:
            kept.append(replace(record, grade=int(record.label or 0), label=None))
        else:
            raw.rejected.append(record.rejected(f"no relevant answer to its query ({column} 0 only)"))
    irrelevant = sum(record.grade == 0 for record in kept)
    raw.kind, raw.records = "retrieval", kept
    raw.columns = _renamed(raw.columns, "grade")
    raw.notes.append(
        f"the column {column!r} (0 and 1, several rows a query) is read as relevance: {irrelevant:,} answers of 0 are "
        f"hard negatives; if it holds labels of similarity, give --label-column {column}"
    )
    return raw


def _renamed(columns: dict[str, list[str]], role: str) -> dict[str, list[str]]:
    kept = {name: list(values) for name, values in columns.items() if name != "label"}
    kept[role] = [*kept.get(role, []), *columns.get("label", [])]
    return kept
