"""SemanticCache: results of queries that mean the same, served only where that is about sure.

Queries near in their vectors may mean something else: reversed questions have cosines of 0.83 to 0.99. So the sign bits
of the vectors only nominate; the true cosine, and what was learned of the entry itself, decide (`core.error_model`).
What is learned comes from results that were computed although an entry was near: they are compared with it.

Shapes: N entries, D dimensions.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from acclimate.core.error_model import (
    LEAST_COMPARISONS,
    chance_of_right,
    log_posterior,
    share_computed,
    sign_bits,
)
from acclimate.core.wording import veto

V = TypeVar("V")

DELTA = 0.01
"""The share of queries that may be answered wrongly."""
LEAST_CHANCE = 0.9
"""An entry that is less sure never serves. vCache's rule lets it serve now and then, so that the share of all queries
is kept; but of what is served, too much would be wrong."""
NOMINATED = 8
"""Entries whose sign bits are nearest, of which the true cosines are computed."""
CONFIDENCE = 0.95
"""How sure the bound of false hits is."""


@dataclass(slots=True, eq=False)
class Entry(Generic[V]):
    """A query with its result, and how often it was right for others."""

    text: str
    vector: NDArray[np.float32]
    """[D], of length 1."""
    result: V
    comparisons: int = 0
    """With results that were computed."""
    log_TG: NDArray[np.float64] | None = None
    """What they say of its curve: see `log_posterior`."""

    def chance(self, similarity: float) -> float:
        """How sure it is that the result is right for a query of this similarity; 0 where the entry is cold."""
        if self.log_TG is None or self.comparisons < LEAST_COMPARISONS:
            return 0.0
        return chance_of_right(similarity, self.log_TG)

    def compare(self, similarity: float, is_same: bool) -> None:
        """Learn whether the result was right for a query of this similarity."""
        said_TG = log_posterior(np.array([similarity]), np.array([is_same]))
        self.log_TG = said_TG if self.log_TG is None else self.log_TG + said_TG
        self.comparisons += 1


@dataclass(frozen=True, slots=True)
class Nominee(Generic[V]):
    """The entry that is nearest to a query."""

    entry: Entry[V]
    similarity: float
    """Cosine."""
    chance: float
    """How sure it is that its result is right."""
    serves: bool
    """Whether its result is the answer; else the result is to be computed and given to `computed`."""


@dataclass(slots=True)
class Counts:
    """What became of the queries."""

    queries: int = 0
    hits: int = 0
    shadows: int = 0
    """Results that were computed although an entry was near, and compared with it."""
    audited: int = 0
    """Hits whose result was computed afterwards."""
    false_hits: int = 0
    """Audited hits that were wrong."""
    vetoed: int = 0
    """Queries whose nearest entry has other numbers, another negation, or another order of words."""

    @property
    def bound(self) -> float:
        """The upper bound of the share of hits that are wrong, with confidence `CONFIDENCE` (Clopper and Pearson)."""
        return upper_bound(self.false_hits, self.audited, CONFIDENCE)


class SemanticCache(Generic[V]):
    """Results by meaning, in compartments between which nothing is shared. Not for several threads.

    Args:
        is_same: whether a result could have stood for another one.
        delta: the share of queries that may be answered wrongly.
        max_entries: of all compartments together; the compartment that was used longest ago is forgotten, or, where
            there is one only, the older half of its entries.
        seed: of the draws that settle what is computed anew.
        vetoes: why texts differ however near they are; None for nothing (to measure what it does).
    """

    def __init__(
        self,
        is_same: Callable[[V, V], bool],
        *,
        delta: float = DELTA,
        max_entries: int = 10_000,
        seed: int | None = None,
        vetoes: Callable[[str, str], str | None] | None = veto,
    ) -> None:
        self.counts = Counts()
        self._is_same, self._delta, self._max_entries, self._vetoes = is_same, delta, max_entries, vetoes
        self._draw = random.Random(seed)
        self._compartments: OrderedDict[Hashable, _Compartment[V]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(one.entries) for one in self._compartments.values())

    def look(self, scope: Hashable, epoch: Hashable, text: str, vector: NDArray[np.float32]) -> Nominee[V] | None:
        """Find the entry that is nearest to a query, and settle whether it serves.

        Args:
            scope: what results depend on besides the query: nothing is served from another one.
            epoch: what changes with everything that results are made from: entries of another one are forgotten.
            text: the query.
            vector: [D], of length 1.
        """
        self.counts.queries += 1
        nearest = self._compartment(scope, epoch).nearest(vector)
        allowed = [one for one in nearest if self._vetoes is None or self._vetoes(text, one[1].text) is None]
        self.counts.vetoed += bool(nearest) and (not allowed or allowed[0] is not nearest[0])
        if not allowed:
            return None
        similarity, entry = allowed[0]
        chance = entry.chance(similarity)
        serves = chance >= LEAST_CHANCE and self._draw.random() >= share_computed(chance, self._delta)
        self.counts.hits += serves
        return Nominee(entry, similarity, chance, serves)

    def computed(
        self,
        scope: Hashable,
        epoch: Hashable,
        text: str,
        vector: NDArray[np.float32],
        result: V,
        near: Nominee[V] | None,
    ) -> None:
        """Take a result that was computed: what was near is compared with it, and where it was wrong, or nothing was
        near, the result becomes an entry.

        Args:
            scope: see `look`.
            epoch: see `look`; the one of before the result was computed.
            text: see `look`.
            vector: see `look`.
            result: what was computed.
            near: what `look` has given; it did not serve.
        """
        if near is not None:
            self.counts.shadows += 1
            if self._compare(near, result):
                return
        compartment = self._compartments.get(scope)
        if compartment is None or compartment.epoch != epoch:  # something has changed meanwhile
            return
        compartment.add(Entry(text, vector.astype(np.float32), result))
        self._make_room(compartment)

    def audit(self, served: Nominee[V], result: V) -> bool:
        """Compare a result that was served with the one that was computed afterwards; return whether it was right."""
        self.counts.audited += 1
        is_right = self._compare(served, result)
        self.counts.false_hits += not is_right
        return is_right

    def _compare(self, near: Nominee[V], result: V) -> bool:
        is_same = self._is_same(near.entry.result, result)
        near.entry.compare(near.similarity, is_same)
        return is_same

    def _compartment(self, scope: Hashable, epoch: Hashable) -> _Compartment[V]:
        found = self._compartments.get(scope)
        if found is None or found.epoch != epoch:
            found = self._compartments[scope] = _Compartment(epoch)
        self._compartments.move_to_end(scope)
        return found

    def _make_room(self, used: _Compartment[V]) -> None:
        while len(self) > self._max_entries:
            if len(self._compartments) > 1:
                self._compartments.popitem(last=False)
            else:
                used.forget_older_half()


class _Compartment(Generic[V]):
    """The entries of one scope and epoch, and the sign bits of their vectors."""

    def __init__(self, epoch: Hashable) -> None:
        self.epoch = epoch
        self.entries: list[Entry[V]] = []
        self._bits: faiss.IndexBinaryFlat | None = None

    def nearest(self, vector: NDArray[np.float32]) -> list[tuple[float, Entry[V]]]:
        """The nominated entries with their true cosines, nearest first."""
        if self._bits is None:
            return []
        _, places = self._bits.search(sign_bits(vector[None]), min(NOMINATED, len(self.entries)))
        found = [(float(vector @ self.entries[place].vector), self.entries[place]) for place in places[0]]
        return sorted(found, key=lambda pair: -pair[0])

    def add(self, entry: Entry[V]) -> None:
        """Take an entry in."""
        bits = sign_bits(entry.vector[None])
        if self._bits is None:
            self._bits = faiss.IndexBinaryFlat(8 * bits.shape[1])
        self._bits.add(bits)
        self.entries.append(entry)

    def forget_older_half(self) -> None:
        """Make room."""
        kept, self.entries, self._bits = self.entries[(len(self.entries) + 1) // 2 :], [], None
        for entry in kept:
            self.add(entry)


def upper_bound(wrong: int, count: int, confidence: float) -> float:
    """Give the highest share that is still plausible after so many were wrong of so many (Clopper and Pearson 1934).

    Args:
        wrong: how many were wrong.
        count: of how many; 0 gives 1.
        confidence: the probability with which the true share is no higher.
    """
    return 1.0 if wrong >= count else float(betaincinv(wrong + 1, count - wrong, confidence))
