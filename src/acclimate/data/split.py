"""Leak-free train, dev and test, for all data sets of a run together.

Given splits are respected: queries of test or dev are removed from train, whichever data set they are of. Own splits
are cut along the connected components of a graph over all data sets, whose nodes are texts and whose edges are pairs,
so that no text is on both sides. "The same text" is what `core.same_text` says. Every component has the same chance to
be held out, whatever its size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from acclimate.core.same_text import TokenKeys, connected, same_text_key, same_texts
from acclimate.data.leaks import remove_leaks, separate_documents, separate_near_duplicates
from acclimate.data.records import Record
from acclimate.data.splits import Fold, Source, Splits, held_out
from acclimate.errors import DataError
from acclimate.types import Kind, Split

MIN_TEST = 100
"""Fewer test queries prove nothing: the interval of a mean over 100 is about +-0.08 wide."""
MAX_DEV = 500
LARGEST = 0.05
"""A component with a larger share of the pairs stays in train: it would make one topic the whole test. So does a group
that the user asks for (a query, a column's value), unless the wanted share of the split is larger."""
NAMED = 3
"""Groups that are named where they are too large for a split."""
NAME_CHARS = 60

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Unit:
    """Training records that must stay together, by data set, and their place in the draw."""

    members: dict[int, list[int]]
    """Data set -> places of its records."""
    queries: dict[int, int]
    """Data set -> how many queries (pairs) they hold."""
    draw: int
    name: str


def draw(seed: int, purpose: str, *texts: str) -> int:
    """A pseudo-random number that depends on the seed, the purpose and the texts alone: sorting by it is a stable
    draw."""
    digest = hashlib.blake2b("\0".join((str(seed), purpose, *texts)).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def split_sources(
    sources: Sequence[Source], seed: int, token_keys: TokenKeys | None = None, fold: Fold | None = None
) -> list[Splits]:
    """Assign every record of all data sets of a run to a split, so that none is trained on what another is tested with.

    Args:
        sources: the data sets.
        seed: fixes the draw.
        token_keys: by which texts are the same too, if a model is known.
        fold: of the only data set, this part is the test, the others the training; or all is (`ALL_DATA`).

    Returns:
        the splits of each data set.

    Raises:
        DataError: too few test queries can be set apart without a leak, or the column has too few values; there are
            fewer groups than folds.
    """
    return _Splitter(sources, seed, token_keys, fold).run()


class _Splitter:
    """The splits of all data sets in the making."""

    def __init__(self, sources: Sequence[Source], seed: int, token_keys: TokenKeys | None, fold: Fold | None) -> None:
        self.sources, self.seed, self.fold = sources, seed, fold
        texts = (text for one in sources for record in one.records for text in (record.anchor, record.positive))
        self._names = same_texts(texts, token_keys)
        self.splits = [Splits.given(one) for one in sources]

    def key(self, text: str) -> str:
        """What a text has in common with all that are the same."""
        name = self._names.get(text)
        return same_text_key(text) if name is None else name

    def run(self) -> list[Splits]:
        for split in ("test", "dev"):
            remove_leaks(self.sources, self.splits, self.key)
            if split == "test" and self.fold is not None:
                self._cut_fold(self.fold)
            else:
                self._cut(split)
        remove_leaks(self.sources, self.splits, self.key)
        held = held_out(self.sources, self.splits, ("dev", "test"), self.key, range(len(self.sources)))
        for one, splits in zip(self.sources, self.splits, strict=True):
            splits.made.setdefault("train", "what the other splits leave")
            separate_documents(one, splits, held, self.key)
        separate_near_duplicates(self.sources, self.splits, self.key)
        return self.splits

    def _cut(self, split: Split) -> None:
        """Cut a split of every data set that does not bring it: first those that go by components, over all data sets
        together, then each of the others."""
        modes: dict[int, tuple[str, str]] = {}
        for number, one in enumerate(self.sources):
            if split not in one.given and one.share(split) > 0 and self.splits[number].records["train"]:
                modes[number] = (one.config.split_by, "") if split == "test" else self._dev_mode(number)
        components = self._units(range(len(self.sources)), "component", split) if modes else []
        if split == "dev":
            for number, (mode, why) in modes.items():
                if mode == "component" and 2 * self._reachable(components, number) < self._target(number, split):
                    why = ", because nearly all training pairs are connected by shared texts"
                    modes[number] = ("query", why)
        together = [number for number, (mode, _) in modes.items() if mode == "component"]
        chosen: dict[int, _Unit] = {}
        for number in together:
            for unit in _choose(components, self._fits(together, split), number, self._target(number, split)):
                chosen[id(unit)] = unit
        self._check_and_move(split, list(chosen.values()), components, {n: modes[n] for n in together})
        for number, (mode, why) in modes.items():
            if mode != "component":
                units = self._units([number], mode, split)
                found = _choose(units, self._fits([number], split, mode), number, self._target(number, split))
                self._check_and_move(split, found, units, {number: (mode, why)})

    def _cut_fold(self, fold: Fold) -> None:
        """Make one fold of the only data set its test, or none. A group larger than a fold stays in train, always."""
        (one,), (splits,) = self.sources, self.splits
        if not fold.number:
            return
        if "test" in one.given:
            raise DataError(
                "the data brings a test split, which folds would mix with its train split",
                fix="Leave --folds out: the given split is the test; or give one file of pairs that are not split.",
            )
        mode = one.config.split_by
        units = self._units([0], mode, "test")
        most = max(self._pairs(0) / fold.of, 1)
        fitting = [unit for unit in units if len(unit.members[0]) <= most]
        if len(fitting) < fold.of:
            raise _too_few_groups(fold, len(fitting), len(units) - len(fitting), mode)
        chosen = deal(fitting, [unit.queries[0] for unit in fitting], fold.of)[fold.number - 1]
        queries = sum(unit.queries[0] for unit in chosen)
        splits.made["test"] = f"{fold}, cut by {mode}: {queries} of {self._total(0)} {_noun(one.kind)}"
        splits.notes += _too_large([unit for unit in units if len(unit.members[0]) > most], 0, "a fold", self._pairs(0))
        self._move("test", chosen, [0])

    def _dev_mode(self, number: int) -> tuple[str, str]:
        """In the way of the test split, or by query where the given test shares most of its documents with train."""
        mode, splits = self.sources[number].config.split_by, self.splits[number]
        if splits.made.get("test") == "given" and self.sources[number].kind == "retrieval" and mode == "component":
            documents = {self.key(record.positive) for record in splits.records["test"]}
            shared = documents & {self.key(record.positive) for record in splits.records["train"]}
            if 2 * len(shared) > len(documents):
                return "query", ", because the given test shares most of its documents with train"
        return mode, ""

    def _units(self, numbers: Collection[int], mode: str, purpose: str) -> list[_Unit]:
        """Training records grouped by what must stay together, in the order of a seeded draw: one for each group."""
        rows = [(number, place) for number in numbers for place in range(len(self.splits[number].records["train"]))]
        records = [self.splits[number].records["train"][place] for number, place in rows]
        if mode not in ("component", "query") and any(record.group is None for record in records):
            raise DataError(
                f"--split-by {mode}: this source has no columns besides its texts", possible="component, query"
            )
        links: Callable[[Record], tuple[str, ...]] = {
            "component": lambda record: (self.key(record.anchor), self.key(record.positive)),
            "query": lambda record: (self.key(record.anchor),),
        }.get(mode, lambda record: (self.key(record.anchor), f"\0{record.group}"))
        groups: dict[int, list[int]] = {}
        for index, root in enumerate(connected([links(record) for record in records])):
            groups.setdefault(root, []).append(index)
        units = []
        for group in groups.values():
            members: dict[int, list[int]] = {}
            anchors: dict[int, set[str]] = {}
            for index in group:
                number, place = rows[index]
                members.setdefault(number, []).append(place)
                anchors.setdefault(number, set()).add(self.key(records[index].anchor))
            queries = {
                number: len(members[number]) if self.sources[number].kind == "pairs" else len(anchors[number])
                for number in members
            }
            # The draw goes by one of the texts, however many there are: the least of many draws would come early.
            name = min(key for keys in anchors.values() for key in keys)
            example = min(records[index].anchor for index in group)
            units.append(_Unit(members, queries, draw(self.seed, purpose, name), example))
        return sorted(units, key=lambda unit: (unit.draw, unit.name))

    def _total(self, number: int) -> int:
        records = self.splits[number].records["train"]
        if self.sources[number].kind == "pairs":
            return len(records)
        return len({self.key(record.anchor) for record in records})

    def _target(self, number: int, split: Split) -> int:
        total, share = self._total(number), self.sources[number].share(split)
        if split == "test":
            return min(max(round(share * total), MIN_TEST), total // 2)
        return min(max(round(share * total), 1), MAX_DEV)

    def _fits(self, cutting: Collection[int], split: Split, mode: str = "component") -> Callable[[_Unit], bool]:
        """Whether a group is small enough: for every data set that it has pairs of. A single record always is, or small
        data would have no split at all."""
        sizes = [len(splits.records["train"]) for splits in self.splits]
        shares = [LARGEST] * len(sizes)
        if mode != "component":
            shares = [max(LARGEST, one.share(split)) for one in self.sources]
        most = {number: self._target(number, split) for number in cutting} if split == "dev" else {}

        def fits(unit: _Unit) -> bool:
            return all(
                len(places) <= max(shares[number] * sizes[number], 1)
                and unit.queries[number] <= most.get(number, unit.queries[number])
                for number, places in unit.members.items()
            )

        return fits

    def _reachable(self, units: Sequence[_Unit], number: int) -> int:
        fits = self._fits([number], "dev")
        return sum(unit.queries.get(number, 0) for unit in units if fits(unit))

    def _check_and_move(
        self, split: Split, chosen: Sequence[_Unit], units: Sequence[_Unit], modes: Mapping[int, tuple[str, str]]
    ) -> None:
        fits = self._fits(modes, split, next((mode for mode, _ in modes.values()), "component"))
        for number, (mode, why) in modes.items():
            one, splits = self.sources[number], self.splits[number]
            queries, total = sum(unit.queries.get(number, 0) for unit in chosen), self._total(number)
            if split == "test" and queries < (MIN_TEST if mode == "component" else 1):
                raise _too_few(queries, total, one.kind, mode, [len(unit.members.get(number, ())) for unit in units])
            if queries:
                how = "cut by" if split == "test" else "cut from train by"
                splits.made[split] = f"{how} {mode}{why}: {queries} of {total} {_noun(one.kind)}"
            splits.notes += _too_large([unit for unit in units if not fits(unit)], number, split, self._pairs(number))
        self._move(split, chosen, modes)

    def _move(self, split: Split, chosen: Sequence[_Unit], cutting: Collection[int]) -> None:
        """Move groups out of train: into the split of the data sets that are cut, out of the others altogether."""
        for number, splits in enumerate(self.splits):
            moved = {place for unit in chosen for place in unit.members.get(number, ())}
            if not moved:
                continue
            train = splits.records["train"]
            out = [train[place] for place in sorted(moved)]
            if number in cutting:
                splits.records[split] = out
            else:
                splits.rejected += [
                    record.rejected(f"leak (connected to the {split} split of another data set)") for record in out
                ]
            splits.records["train"] = [record for place, record in enumerate(train) if place not in moved]

    def _pairs(self, number: int) -> int:
        return len(self.splits[number].records["train"])


def _choose(units: Sequence[_Unit], fits: Callable[[_Unit], bool], number: int, target: int) -> list[_Unit]:
    """Groups in the order of the draw until `target` queries of a data set are reached; the last may go beyond."""
    chosen: list[_Unit] = []
    count = 0
    for unit in units:
        if count >= target:
            break
        if number in unit.members and fits(unit):
            chosen.append(unit)
            count += unit.queries[number]
    return chosen


def deal(items: Sequence[T], sizes: Sequence[int], hands: int) -> list[list[T]]:
    """Deal items out, in their order, each to the hand that holds the least so far; every item goes to one hand."""
    dealt: list[list[T]] = [[] for _ in range(hands)]
    held = [0] * hands
    for item, size in zip(items, sizes, strict=True):
        least = held.index(min(held))
        dealt[least].append(item)
        held[least] += size
    return dealt


def _too_few_groups(fold: Fold, groups: int, larger: int, mode: str) -> DataError:
    what = {"component": "that share texts", "query": "of one query"}.get(mode, f"of one {mode}")
    beside = f", and {larger:,} larger than a fold" if larger else ""
    return DataError(
        f"{fold.of} folds cannot be cut from {groups:,} groups of pairs {what}{beside}",
        possible=f"--folds 2 to {groups}, --split-by query" if groups > 1 else "--split-by query",
        fix="Give fewer folds, or --split-by query (documents are then shared with training), or bring more data.",
    )


def _too_few(queries: int, total: int, kind: Kind, mode: str, sizes: Sequence[int]) -> DataError:
    pairs = max(sum(sizes), 1)
    largest = max(sizes, default=0) / pairs
    return DataError(
        f"only {queries} of {total} {_noun(kind)} can be set apart for the test without sharing a text with train, "
        f"{MIN_TEST} are needed (the largest group of pairs that share texts holds {largest:.0%} of them): over fewer, "
        f"a mean is uncertain by more than 0.08; and as at most half become the test, it takes {2 * MIN_TEST} or more"
        if mode == "component"
        else f"no test split can be cut by {mode} from {total} {_noun(kind)} in {len(sizes)} groups "
        f"(the largest holds {largest:.0%} of the pairs)",
        possible="adapt --folds 5 (cross-validation: every query is tested once, by an adapter that has not seen it), "
        "--split-by query (documents may then be shared with training), --split-by COLUMN, "
        "a larger --test-fraction, or a folder with given train and test files",
        fix="Choose one of these, or bring more data.",
    )


def _too_large(units: Sequence[_Unit], number: int, split: str, pairs: int) -> list[str]:
    """Name the groups that stay in train because of their size."""
    sizes = [(len(unit.members[number]), unit.name) for unit in units if number in unit.members]
    if not sizes:
        return []
    named = [f"{name[:NAME_CHARS]!r} ({size:,} pairs)" for size, name in sorted(sizes, reverse=True)[:NAMED]]
    share = sum(size for size, _ in sizes) / max(pairs, 1)
    return [
        f"{len(sizes):,} groups of pairs, {share:.0%} of all, are too large for {split} and stay in train: "
        + ", ".join(named)
        + (", .." if len(sizes) > NAMED else "")
    ]


def _noun(kind: Kind) -> str:
    return "queries" if kind == "retrieval" else "pairs"
