"""Duplicates and contradictions between rows. A row that is unusable by itself is rejected while it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acclimate.data.records import Record
from acclimate.types import Kind, Rejected


def clean(records: Sequence[Record], kind: Kind) -> tuple[list[Record], list[Rejected]]:
    """Remove exact duplicates and contradictions from the training records. Dev and test records stay as they are, so
    that scores remain comparable with published ones.

    Rows of one pair with different negatives (triplets) become one record. Both rows of a contradiction are removed,
    since nothing says which label is right. So is a negative that is a positive of the same query elsewhere.

    Args:
        records: in the order of the input.
        kind: decides what a contradiction is: two labels, or relevant and not relevant.
    """
    first: dict[tuple[str, str], Record] = {}
    contradicted: dict[tuple[str, str], Record] = {}
    for record in records:
        if record.split == "train":
            known = first.setdefault((record.anchor, record.positive), record)
            if _judgement(known, kind) != _judgement(record, kind):
                contradicted.setdefault((record.anchor, record.positive), record)
    kept: list[Record] = []
    index_of: dict[tuple[str, str], int] = {}
    rejected: list[Rejected] = []
    for record in records:
        key = (record.anchor, record.positive)
        if record.split != "train":
            kept.append(record)
        elif key in contradicted:
            other = first[key] if record is not first[key] else contradicted[key]
            rejected.append(record.rejected(f"contradiction (of {other.source} row {other.row})"))
        elif key not in index_of:
            index_of[key] = len(kept)
            kept.append(record)
        elif new := [text for text in record.negatives if text not in kept[index_of[key]].negatives]:
            kept[index_of[key]] = _with_negatives(kept[index_of[key]], record, new)
        else:
            rejected.append(record.rejected(f"duplicate (of {first[key].source} row {first[key].row})"))
    return _without_positive_negatives(kept), rejected


def _judgement(record: Record, kind: Kind) -> float | bool | None:
    return record.label if kind == "pairs" else record.grade > 0


def _with_negatives(record: Record, other: Record, new: list[str]) -> Record:
    scores = None
    if record.scores is not None and other.scores is not None:
        by_text = dict(zip(other.negatives, other.scores[1:], strict=True))
        scores = record.scores + tuple(by_text[text] for text in new)
    return replace(record, negatives=record.negatives + tuple(new), scores=scores)


def _without_positive_negatives(records: list[Record]) -> list[Record]:
    with_negatives = {record.anchor for record in records if record.negatives}
    positives: dict[str, set[str]] = {}
    for record in records:
        if record.anchor in with_negatives and record.grade > 0:
            positives.setdefault(record.anchor, set()).add(record.positive)
    return [without_negatives(record, positives.get(record.anchor, set())) for record in records]


def without_negatives(record: Record, unwanted: set[str]) -> Record:
    """The record without the negatives whose text is unwanted, and without their scores."""
    if not record.negatives or unwanted.isdisjoint(record.negatives):
        return record
    kept = [index for index, text in enumerate(record.negatives) if text not in unwanted]
    scores = record.scores and (record.scores[0], *(record.scores[1 + index] for index in kept))
    return replace(record, negatives=tuple(record.negatives[index] for index in kept), scores=scores)
