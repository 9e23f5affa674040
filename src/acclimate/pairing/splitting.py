"""Which made pairs are trained on, and which are kept for the choice of a step (dev) and for the proof (test)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from acclimate.core.same_text import connected, same_text_key
from acclimate.data.made import LIKE_QUERIES, STAND_INS
from acclimate.data.split import LARGEST, MAX_DEV, MIN_TEST, draw
from acclimate.pairing.made_pair import MadePair
from acclimate.types import Split

MIN_DEV = 50
"""Fewer dev queries choose a step by chance; but at most a quarter of what the test leaves."""
MIN_DOCUMENTS = 40
"""With fewer documents the split is by passage: one document would be a large part of a split."""


@dataclass
class SplitPairs:
    """Made pairs by split."""

    splits: dict[Split, list[MadePair]]
    by: str
    """`document` or `passage`: what no two splits share."""
    tested: tuple[str, ...]
    """Sources that dev and test consist of."""
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(source, why) -> how many pairs are in no split."""


def without_ambiguous(pairs: Sequence[MadePair]) -> tuple[list[MadePair], Counter[tuple[str, str]]]:
    """The pairs without those whose query was made for several passages ("Introduction"): nobody could know which."""
    passages: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        if pair.made_by in LIKE_QUERIES:
            passages[same_text_key(pair.query)].add(pair.positive)
    kept, dropped = [], Counter[tuple[str, str]]()
    for pair in pairs:
        if pair.made_by in LIKE_QUERIES and len(passages[same_text_key(pair.query)]) > 1:
            dropped[pair.made_by, "the same query for several passages"] += 1
        else:
            kept.append(pair)
    return kept, dropped


def split_pairs(
    pairs: Sequence[MadePair], *, test_fraction: float, dev_fraction: float, seed: int, documents: int
) -> SplitPairs:
    """Put every pair into a split, so that no document is in two of them.

    Documents that pairs of tested sources join (mates) go into the same split, unless they are too many for one.

    Args:
        pairs: of all sources.
        test_fraction: wanted share of the pairs with queries like those of users that becomes the test, but at least
            `MIN_TEST` and at most half; 0 makes no test.
        dev_fraction: likewise, of the rest, for dev: from `MIN_DEV` to `MAX_DEV`.
        seed: of the draw of documents.
        documents: how many there are.
    """
    by_passage = documents < MIN_DOCUMENTS
    tested = _tested(pairs)
    asking = [pair for pair in pairs if pair.made_by in tested]
    group = _joined_documents(asking)

    def units(pair: MadePair) -> tuple[str, ...]:
        if by_passage:
            return (same_text_key(pair.positive),)
        return tuple(group.get(document, document) for document in pair.documents)

    test = min(max(round(test_fraction * len(asking)), MIN_TEST), len(asking) // 2) if test_fraction else 0
    rest = len(asking) - test
    dev = min(max(round(dev_fraction * rest), MIN_DEV), MAX_DEV, rest // 4) if dev_fraction else 0
    held = _held_out(asking, units, {"test": test, "dev": dev}, seed)
    found = SplitPairs({"train": [], "dev": [], "test": []}, "passage" if by_passage else "document", tested)
    for pair in pairs:
        splits = {held.get(unit, "train") for unit in units(pair)}
        split = splits.pop() if len(splits) == 1 else None
        if split is None or (split != "train" and pair.made_by not in tested):
            found.dropped[pair.made_by, f"of a {found.by} that is held out"] += 1
        else:
            found.splits[split].append(pair)
    return found


def _tested(pairs: Sequence[MadePair]) -> tuple[str, ...]:
    """The sources that make enough test queries: those like users' queries first."""
    counts = Counter(pair.made_by for pair in pairs)
    tested = [source for source in LIKE_QUERIES if counts[source]]
    for source in STAND_INS:  # they join one after the other, where there are too few
        if sum(counts[it] for it in tested) < 2 * MIN_TEST and counts[source]:
            tested.append(source)
    return tuple(tested)


def _joined_documents(asking: Sequence[MadePair]) -> dict[str, str]:
    """Document -> the first by name of those that pairs join it to, where their pairs are no large share of all."""
    members: dict[int, set[str]] = defaultdict(set)
    sizes = Counter[int]()
    for root, pair in zip(connected([pair.documents for pair in asking]), asking, strict=True):
        members[root].update(pair.documents)
        sizes[root] += 1
    return {
        document: min(documents)
        for root, documents in members.items()
        if sizes[root] <= _most(asking)
        for document in documents
    }


def _most(asking: Sequence[MadePair]) -> float:
    """How many pairs a document, or documents that are joined, may have to be held out."""
    return max(LARGEST * len(asking), 1)


def _held_out(
    asking: Sequence[MadePair],
    units: Callable[[MadePair], tuple[str, ...]],
    wanted: dict[Split, int],
    seed: int,
) -> dict[str, Split]:
    """The units of dev and test, in the order of a draw; one with a large share of the pairs stays in train."""
    counts = Counter(unit for pair in asking for unit in units(pair)[:1])
    drawn = sorted(
        (unit for unit in counts if counts[unit] <= _most(asking)),
        key=lambda unit: (draw(seed, "held out", unit), unit),
    )
    held: dict[str, Split] = {}
    place = 0
    for split, target in wanted.items():
        count = 0
        while count < target and place < len(drawn):
            held[drawn[place]] = split
            count += counts[drawn[place]]
            place += 1
    return held
