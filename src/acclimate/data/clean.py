"""Duplicates and contradictions between rows. A row that is unusable by itself is rejected while it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from acclimate.core.same_text import same_text_key
from acclimate.data.records import Record, folded
from acclimate.types import Kind, Rejected


def clean(records: Sequence[Record], kind: Kind) -> tuple[list[Record], list[Rejected]]:
    """Remove exact duplicates and contradictions from the training records. Dev and test records stay as they are, so
    that scores remain comparable with published ones.

    Rows of one pair with different negatives (triplets) become one record. Both rows of a contradiction are removed,
    since nothing says which label is right. So is a negative that is a positive of the same query elsewhere. Rows are
    compared letter by letter here, white space aside, unlike everywhere else: two spellings of a pair may well have two
    labels, and a row too many in train tells nothing about the test.

    Args:
        records: in the order of the input.
        kind: decides what a contradiction is: two labels, or relevant and not relevant.
    """
    first: dict[tuple[str, str], Record] = {}
    contradicted: dict[tuple[str, str], Record] = {}
    for record in records:
        if record.split == "train":
            known = first.setdefault(_key(record), record)
            if _judgement(known, kind) != _judgement(record, kind):
                contradicted.setdefault(_key(record), record)
    kept: list[Record] = []
    index_of: dict[tuple[str, str], int] = {}
    rejected: list[Rejected] = []
    for record in records:
        key = _key(record)
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


def _key(record: Record) -> tuple[str, str]:
    return folded(record.anchor), folded(record.positive)


def _judgement(record: Record, kind: Kind) -> float | bool | None:
    return record.label if kind == "pairs" else record.grade > 0


def _with_negatives(record: Record, other: Record, new: list[str]) -> Record:
    scores = None
    if record.scores is not None and other.scores is not None:
        by_text = dict(zip(other.negatives, other.scores[1:], strict=True))
        scores = record.scores + tuple(by_text[text] for text in new)
    return replace(record, negatives=record.negatives + tuple(new), scores=scores)


def _without_positive_negatives(records: list[Record]) -> list[Record]:
    """By the definition of "the same text": a positive in other dress is no negative."""
    with_negatives = {same_text_key(record.anchor) for record in records if record.negatives}
    positives: dict[str, set[str]] = {}
    for record in records:
        if record.grade > 0 and (anchor := same_text_key(record.anchor)) in with_negatives:
            positives.setdefault(anchor, set()).add(same_text_key(record.positive))

    def is_positive(record: Record, text: str) -> bool:
        return same_text_key(text) in positives.get(same_text_key(record.anchor), set())

    return [without_negatives(record, lambda text, of=record: is_positive(of, text)) for record in records]  # type: ignore[misc]


def without_negatives(record: Record, unwanted: Callable[[str], bool]) -> Record:
    """The record without its unwanted negatives, and without their scores."""
    kept = [index for index, text in enumerate(record.negatives) if not unwanted(text)]
    if len(kept) == len(record.negatives):
        return record
    scores = record.scores and (record.scores[0], *(record.scores[1 + index] for index in kept))
    return replace(record, negatives=tuple(record.negatives[index] for index in kept), scores=scores)
