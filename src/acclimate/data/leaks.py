"""What the training rows of all data sets of a run may hold beside dev and test: by the one rule of `held_out`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from acclimate.data.clean import without_negatives
from acclimate.data.held_out import HeldOut
from acclimate.data.near import near_duplicates
from acclimate.data.records import Record
from acclimate.data.splits import Key, Source, Splits, held_out
from acclimate.types import Kind, Split


def remove_leaks(sources: Sequence[Source], splits: Sequence[Splits], key: Key) -> None:
    """Remove test queries from dev and train, and dev queries from train, whether they are queries there or documents,
    in every data set."""
    steps: tuple[tuple[Split, tuple[Split, ...], str], ...] = (
        ("dev", ("test",), "test"),
        ("train", ("dev", "test"), "dev or test"),
    )
    for split, above, name in steps:
        anywhere = held_out(sources, splits, above, key, range(len(sources)))
        for number, one in enumerate(splits):
            own = held_out(sources, splits, above, key, [number])
            kept = []
            for record in one.records[split]:
                if not anywhere.excludes_row(record.anchor, record.positive):
                    kept.append(record)
                    continue
                whose = "" if own.excludes_row(record.anchor, record.positive) else " of another data set"
                one.rejected.append(record.rejected(f"leak (its query or pair is in {name}{whose})"))
            one.records[split] = kept


def separate_documents(source: Source, splits: Splits, held: HeldOut, key: Key) -> None:
    """Count documents on both sides, drop their training pairs if asked to; held-out texts are never negatives, be
    they given as such or judged not relevant."""
    judged = {key(text) for record in splits.records["train"] for text in _judged(record, source.kind)}
    splits.shared_documents = len(judged & held.judged)
    kept = []
    for record in splits.records["train"]:
        if source.config.strict_documents and any(key(text) in held.judged for text in _judged(record, source.kind)):
            splits.rejected.append(record.rejected("shared document (strict_documents)"))
        elif source.kind == "retrieval" and record.grade <= 0 and held.excludes(record.positive, "negative"):
            splits.negatives_removed += 1
            splits.rejected.append(record.rejected("leak (not relevant here, and judged for dev or test)"))
        else:
            safe = without_negatives(record, partial(held.excludes, role="negative"))
            splits.negatives_removed += len(record.negatives) - len(safe.negatives)
            kept.append(safe)
    splits.records["train"] = kept


def separate_near_duplicates(sources: Sequence[Source], splits: Sequence[Splits], key: Key) -> None:
    """Count held-out queries (pairs) that are nearly a training text of any data set; drop these rows if asked to."""
    held: dict[tuple[int, str], None] = {}
    rows: list[tuple[int, int, str]] = []
    for number, (source, one) in enumerate(zip(sources, splits, strict=True)):
        for split in ("dev", "test"):
            held |= dict.fromkeys((number, _asked(record, source.kind, key)) for record in one.records[split])
        for place, record in enumerate(one.records["train"]):
            rows += [(number, place, text) for text in _told(record, source.kind, key)]
    held_at, row_at = near_duplicates([text for _, text in held], [text for _, _, text in rows])
    whose = [number for number, _ in held]
    near = [whose[place] for place in sorted(set(held_at.tolist()))]
    near_rows = {rows[row][:2] for row in set(row_at.tolist())}
    for number, (source, one) in enumerate(zip(sources, splits, strict=True)):
        one.near_duplicates = near.count(number)
        if not source.config.strict_near:
            continue
        train, kept = one.records["train"], []
        for place, record in enumerate(train):
            if (number, place) in near_rows:
                one.rejected.append(record.rejected("near-duplicate of dev or test (strict_near)"))
            else:
                kept.append(record)
        one.near_removed = len(train) - len(kept)
        one.records["train"] = kept


def _judged(record: Record, kind: Kind) -> tuple[str, ...]:
    return (record.anchor, record.positive) if kind == "pairs" else (record.positive,)


def _asked(record: Record, kind: Kind, key: Key) -> str:
    """What is compared of a held-out record: its query, or both sentences, in an order of their own."""
    return " ".join(sorted((key(record.anchor), key(record.positive)))) if kind == "pairs" else key(record.anchor)


def _told(record: Record, kind: Kind, key: Key) -> list[str]:
    """What is compared of a training record: both texts, and of labelled pairs both together."""
    both = [key(record.anchor), key(record.positive)]
    return [*both, " ".join(sorted(both))] if kind == "pairs" else both
