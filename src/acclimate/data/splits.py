"""`Source` and `Splits`: one data set of a run before and after it is split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from acclimate.configs import PrepareConfig
from acclimate.data.held_out import HeldOut
from acclimate.data.records import Record
from acclimate.types import SPLITS, Kind, Rejected, Split

Key: TypeAlias = Callable[[str], str]
"""Text -> what it has in common with all texts that are the same."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One of the parts into which a data set is cut, each of which is the test once (cross-validation)."""

    number: int
    """From 1; 0 is none of them (`ALL_DATA`)."""
    of: int
    """How many there are."""

    def __str__(self) -> str:
        return f"fold {self.number} of {self.of}" if self.number else "all data, without a test split"


ALL_DATA = Fold(0, 1)
"""What is trained on where the proof has been made: no test split, dev as ever."""


@dataclass(frozen=True, slots=True)
class Source:
    """One data set, cleaned but not split; records of a source without splits all say `train`."""

    records: Sequence[Record]
    kind: Kind
    """Labelled pairs are kept apart as pairs, retrieval data by query."""
    given: frozenset[Split]
    """Splits that the source defines."""
    config: PrepareConfig
    """How to cut the others."""

    def share(self, split: Split) -> float:
        """The wanted share of a split that is cut."""
        return self.config.test_fraction if split == "test" else self.config.dev_fraction


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
    """Training negatives that are queries of dev or test, or judged there."""
    near_duplicates: int = 0
    """Dev and test queries (pairs) with a near-duplicate among the training texts."""
    near_removed: int = 0
    """Training rows dropped because of these (`strict_near`)."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about the groups that were too large."""

    @classmethod
    def given(cls, source: Source) -> Splits:
        """Start with the splits that the source itself defines."""
        records = {split: [record for record in source.records if record.split == split] for split in SPLITS}
        return cls(records, made=dict.fromkeys([split for split in SPLITS if split in source.given], "given"))

    @classmethod
    def undivided(cls, source: Source, split: Split) -> Splits:
        """Put all records into one split; of a source that defines a test split, only that becomes the test."""
        own = split == "test" and "test" in source.given
        records: dict[Split, list[Record]] = {name: [] for name in SPLITS}
        records[split] = [record for record in source.records if not own or record.split == "test"]
        return cls(records, made={split: "given" if own else "all of the data, nothing is held apart"})


def held_out(
    sources: Sequence[Source], splits: Sequence[Splits], among: Collection[Split], key: Key, which: Collection[int]
) -> HeldOut:
    """Collect what some splits of some data sets hold out.

    Args:
        sources: all data sets.
        splits: their splits so far.
        among: dev, test or both.
        key: gives what two texts have in common that are the same.
        which: numbers of data sets.
    """
    held = HeldOut(key)
    for number in which:
        records = [record for split in among for record in splits[number].records[split]]
        if sources[number].kind == "pairs":
            held.add_pairs((record.anchor, record.positive) for record in records)
        else:
            held.add_queries(record.anchor for record in records)
            held.add_judged(record.positive for record in records)
    return held
