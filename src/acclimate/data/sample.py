"""A sample of the rows: some per label, some of the queries."""

from __future__ import annotations

from acclimate.data.records import Record, folded
from acclimate.data.split import draw
from acclimate.types import Kind, Split


def sample(
    records: dict[Split, list[Record]], kind: Kind, per_label: int | None, limit: int | None, seed: int
) -> dict[Split, list[Record]]:
    """Draw training pairs per label, then at most `limit` queries (or labelled pairs) of every split.

    The choice depends on the seed and the texts only, not on the order of the rows.
    """
    if per_label is not None and kind == "pairs":
        records = {**records, "train": _per_label(records["train"], per_label, seed)}
    if limit is None:
        return records
    return {split: _at_most(rows, kind, limit, seed) for split, rows in records.items()}


def _per_label(records: list[Record], count: int, seed: int) -> list[Record]:
    by_label: dict[float | None, list[int]] = {}
    for index, record in enumerate(records):
        by_label.setdefault(record.label, []).append(index)
    kept: set[int] = set()
    for indices in by_label.values():
        indices.sort(key=lambda index: draw(seed, "label", *_texts(records[index])))
        kept.update(indices[:count])
    return [record for index, record in enumerate(records) if index in kept]


def _at_most(records: list[Record], kind: Kind, limit: int, seed: int) -> list[Record]:
    if kind == "pairs":
        order = sorted(range(len(records)), key=lambda index: draw(seed, "limit", *_texts(records[index])))
        kept = set(order[:limit])
        return [record for index, record in enumerate(records) if index in kept]
    queries = {_query(record) for record in records}
    kept_queries = set(sorted(queries, key=lambda query: (draw(seed, "limit", *query), query))[:limit])
    return [record for record in records if _query(record) in kept_queries]


def _texts(record: Record) -> tuple[str, str]:
    return folded(record.anchor), folded(record.positive)


def _query(record: Record) -> tuple[str, str]:
    return folded(record.anchor), record.anchor_id or ""
