"""Leak-free train, dev and test.

Given splits are respected: queries of test or dev are removed from train. Own splits are cut along the connected
components of a graph whose nodes are texts and whose edges are pairs, so that no text is on both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from acclimate.configs import PrepareConfig
from acclimate.data.clean import without_negatives
from acclimate.data.records import Record
from acclimate.errors import DataError
from acclimate.types import SPLITS, Kind, Rejected, Split

MIN_TEST = 100
"""Fewer test queries prove nothing: the interval of a mean over 100 is about +-0.08 wide."""
MAX_DEV = 500
LARGEST_COMPONENT = 0.05
"""A component with a larger share of the pairs stays in train: it would make one topic the whole test."""
LARGEST_GROUP = 0.5
"""The same for what the user groups by, a query or a column: larger, but never most of the data."""


@dataclass(slots=True)
class Splits:
    """The records of every split, the rejected ones, and how the splits were made."""

    records: dict[Split, list[Record]]
    rejected: list[Rejected] = field(default_factory=list)
    made: dict[Split, str] = field(default_factory=dict)
    """Split -> how it was made, for `dataset.json`."""
    shared_documents: int = 0
    """Texts judged (sentences, of labelled pairs) both in train and in dev or test."""
    negatives_removed: int = 0
    """Training negatives that are queries of dev or test, or judged relevant there."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """Records that must stay together, how many queries they hold, and their place in the draw."""

    members: list[int]
    queries: int
    draw: int


def draw(seed: int, purpose: str, *texts: str) -> int:
    """A pseudo-random number that depends on the seed, the purpose and the texts alone: sorting by it is a stable
    draw."""
    digest = hashlib.blake2b("\0".join((str(seed), purpose, *texts)).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def split_records(
    records: Sequence[Record], kind: Kind, given: frozenset[Split], config: PrepareConfig, seed: int
) -> Splits:
    """Assign every record to a split.

    Args:
        records: cleaned; those of a source without splits all say `train`.
        kind: labelled pairs are kept apart as pairs, retrieval data by query.
        given: splits that the source defines.
        config: how to cut the others.
        seed: fixes the draw.

    Raises:
        DataError: too few test queries can be set apart without a leak, or the column has too few values.
    """
    splits = Splits({split: [record for record in records if record.split == split] for split in SPLITS})
    splits.made = dict.fromkeys([split for split in SPLITS if split in given], "given")
    _remove_leaks(splits, kind)
    if "test" not in given and config.test_fraction > 0:
        _cut_test(splits, kind, config, seed)
    if "dev" not in given and config.dev_fraction > 0 and splits.records["train"]:
        _cut_dev(splits, kind, config, seed)
    _separate_documents(splits, kind, config.strict_documents)
    splits.made.setdefault("train", "what the other splits leave")
    return splits


def held_out_texts(record: Record, kind: Kind) -> frozenset[str]:
    """The texts that are held out with a record: its query, or both sentences of a labelled pair, in any order."""
    return frozenset((record.anchor, record.positive)) if kind == "pairs" else frozenset((record.anchor,))


def _remove_leaks(splits: Splits, kind: Kind) -> None:
    """Remove test queries from dev and train, and dev queries from train, whether they are queries there or
    documents."""
    held: set[frozenset[str]] = {held_out_texts(record, kind) for record in splits.records["test"]}
    below: tuple[tuple[Split, str], ...] = (("dev", "test"), ("train", "dev or test"))
    for split, above in below:
        kept = []
        for record in splits.records[split]:
            texts = [held_out_texts(record, kind)] + ([frozenset((record.positive,))] if kind == "retrieval" else [])
            if held.isdisjoint(texts):
                kept.append(record)
            else:
                splits.rejected.append(record.rejected(f"leak (its query or pair is in {above})"))
        splits.records[split] = kept
        held |= {held_out_texts(record, kind) for record in kept}


def _cut_test(splits: Splits, kind: Kind, config: PrepareConfig, seed: int) -> None:
    train = splits.records["train"]
    mode = config.split_by
    units = _units(train, kind, mode, seed, "test")
    total = sum(unit.queries for unit in units)
    target = min(max(round(config.test_fraction * total), MIN_TEST), total // 2)
    chosen = _choose(units, _largest(mode) * len(train), target, ceiling=total)
    queries = sum(unit.queries for unit in chosen)
    if queries < (MIN_TEST if mode == "component" else 1):
        largest = max((len(unit.members) for unit in units), default=0) / max(len(train), 1)
        raise DataError(
            f"only {queries} of {total} {_noun(kind)} can be set apart for the test without sharing a text with train, "
            f"{MIN_TEST} are needed (the largest group of pairs that share texts holds {largest:.0%} of them)"
            if mode == "component"
            else f"no test split can be cut by {mode} from {total} {_noun(kind)} in {len(units)} groups",
            possible="--split-by query (documents may then be shared with training), --split-by COLUMN, "
            "or a folder with given train and test files",
            fix="Choose one of these, or bring more data.",
        )
    _move(splits, "test", chosen)
    splits.made["test"] = f"cut by {mode}: {queries} of {total} {_noun(kind)}"


def _cut_dev(splits: Splits, kind: Kind, config: PrepareConfig, seed: int) -> None:
    """Cut dev from train in the way of the test split, or by query where the given test shares documents with train."""
    mode, why = config.split_by, ""
    if splits.made.get("test") == "given" and kind == "retrieval" and mode == "component":
        documents = {record.positive for record in splits.records["test"]}
        shared = documents & {record.positive for record in splits.records["train"]}
        if 2 * len(shared) > len(documents):
            mode, why = "query", ", because the given test shares most of its documents with train"
    train = splits.records["train"]
    units = _units(train, kind, mode, seed, "dev")
    total = sum(unit.queries for unit in units)
    target = min(max(round(config.dev_fraction * total), 1), MAX_DEV)
    chosen = _choose(units, _largest(mode) * len(train), target, ceiling=target)
    if mode == "component" and 2 * sum(unit.queries for unit in chosen) < target:
        mode, why = "query", ", because nearly all training pairs are connected by shared texts"
        units = _units(train, kind, mode, seed, "dev")
        chosen = _choose(units, _largest(mode) * len(train), target, ceiling=target)
    if chosen:
        _move(splits, "dev", chosen)
        queries = sum(unit.queries for unit in chosen)
        splits.made["dev"] = f"cut from train by {mode}{why}: {queries} of {total} {_noun(kind)}"


def _noun(kind: Kind) -> str:
    return "queries" if kind == "retrieval" else "pairs"


def _largest(mode: str) -> float:
    return LARGEST_COMPONENT if mode == "component" else LARGEST_GROUP


def _units(records: Sequence[Record], kind: Kind, mode: str, seed: int, purpose: str) -> list[_Unit]:
    """Records grouped by what must stay together, in the order of a seeded draw."""
    if mode not in ("component", "query") and any(record.group is None for record in records):
        raise DataError(f"--split-by {mode}: this source has no columns besides its texts", possible="component, query")
    links: Callable[[Record], tuple[str, ...]] = {
        "component": lambda record: (record.anchor, record.positive),
        "query": lambda record: (record.anchor,),
    }.get(mode, lambda record: (record.anchor, f"\0{record.group}"))
    members: dict[int, list[int]] = {}
    for index, root in enumerate(connected([links(record) for record in records])):
        members.setdefault(root, []).append(index)
    units = []
    for group in members.values():
        anchors = {records[index].anchor for index in group}
        order = min(draw(seed, purpose, anchor) for anchor in anchors)
        units.append(_Unit(group, len(group) if kind == "pairs" else len(anchors), order))
    return sorted(units, key=lambda unit: unit.draw)


def connected(linked: Sequence[Sequence[str]]) -> list[int]:
    """Number the connected component of every item; items are connected through equal texts.

    Union-find with path halving and union by size: nearly linear in the number of texts.
    """
    node: dict[str, int] = {}
    parent: list[int] = []
    size: list[int] = []

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for texts in linked:
        root = -1
        for text in texts:
            if text not in node:
                node[text] = len(parent)
                parent.append(len(parent))
                size.append(1)
            other = find(node[text])
            if root < 0:
                root = other
            elif root != other:
                big, small = (root, other) if size[root] >= size[other] else (other, root)
                parent[small] = big
                size[big] += size[small]
                root = big
    return [find(node[texts[0]]) for texts in linked]


def _choose(units: Sequence[_Unit], largest: float, target: int, ceiling: int) -> list[_Unit]:
    """Units in the order of the draw until `target` queries are reached; units that are too large are passed over.

    A single record is never too large, whatever the share: small data would have no split at all.
    """
    chosen: list[_Unit] = []
    count = 0
    for unit in units:
        if count >= target:
            break
        if len(unit.members) <= max(largest, 1) and count + unit.queries <= ceiling:
            chosen.append(unit)
            count += unit.queries
    return chosen


def _move(splits: Splits, split: Split, chosen: Sequence[_Unit]) -> None:
    moved = {index for unit in chosen for index in unit.members}
    train = splits.records["train"]
    splits.records[split] = [record for index, record in enumerate(train) if index in moved]
    splits.records["train"] = [record for index, record in enumerate(train) if index not in moved]


def _separate_documents(splits: Splits, kind: Kind, strict: bool) -> None:
    """Count documents on both sides, drop their training pairs if asked to; held-out texts are never negatives."""
    held_out = [record for split in ("dev", "test") for record in splits.records[split]]
    queries = {record.anchor for record in held_out}
    documents = {record.positive for record in held_out}
    held_texts = documents | queries
    sides = held_texts if kind == "pairs" else documents
    train = splits.records["train"]
    judged = {text for record in train for text in _judged(record, kind)}
    splits.shared_documents = len(judged & sides)
    kept = []
    for record in train:
        if strict and not sides.isdisjoint(_judged(record, kind)):
            splits.rejected.append(record.rejected("shared document (strict_documents)"))
            continue
        safe = without_negatives(record, held_texts)
        splits.negatives_removed += len(record.negatives) - len(safe.negatives)
        kept.append(safe)
    splits.records["train"] = kept


def _judged(record: Record, kind: Kind) -> tuple[str, ...]:
    return (record.anchor, record.positive) if kind == "pairs" else (record.positive,)
