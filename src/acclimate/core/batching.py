"""Which texts are computed together, and in which order. Numpy only: no tensors, no model.

N texts; lengths are in tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Give the items in lists of `size`, the last one shorter; as `itertools.batched` of Python 3.12."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def chunks_by_tokens(lengths: Sequence[int] | NDArray[np.integer], max_tokens: int) -> list[NDArray[np.int64]]:
    """Cut texts into chunks of at most `max_tokens` tokens, longest texts first.

    Texts of one length stay neighbours, which is what packed attention batches. The longest come first, so that
    a chunk that does not fit into memory fails at once, not after an hour.

    Args:
        lengths: tokens per text.
        max_tokens: budget of one chunk; a longer text is a chunk of its own.

    Returns:
        Indices into `lengths`; every index occurs once. Ties keep their order, so the result is reproducible.
    """
    lengths_N = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths_N, kind="stable").astype(np.int64)
    ends = np.cumsum(lengths_N[order])
    chunks: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        used = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, used + max_tokens, side="right")), start + 1)
        chunks.append(order[start:stop])
        start = stop
    return chunks


def grouped(chunk: NDArray[np.int64], groups: Sequence[Hashable]) -> NDArray[np.int64]:
    """Put a chunk's texts of one group side by side.

    Within a group they keep their order, longest first, or have it reversed, by turns, so that the last of one group
    and the first of the next are of about one length too.

    Args:
        chunk: texts, longest first.
        groups: of each text of the chunk.
    """
    members: dict[Hashable, list[int]] = {}
    for text, group in zip(chunk.tolist(), groups, strict=True):
        members.setdefault(group, []).append(text)
    turned = [texts[::-1] if number % 2 else texts for number, texts in enumerate(members.values())]
    return np.array([text for texts in turned for text in texts], np.int64)


def even_chunks(lengths: Sequence[int] | NDArray[np.integer], max_tokens: int, shares: int) -> list[NDArray[np.int64]]:
    """Chunks as by `chunks_by_tokens`, but of equal size and equally many for each of several processes.

    Args:
        lengths: tokens per text.
        max_tokens: budget of one chunk.
        shares: how many processes the chunks will be dealt out to.

    Returns:
        A multiple of `shares` chunks (fewer where there are fewer texts), whose tokens differ by one text at most.
    """
    lengths_N = np.asarray(lengths, dtype=np.int64)
    if shares == 1 or len(lengths_N) == 0:
        return chunks_by_tokens(lengths_N, max_tokens)
    order = np.argsort(-lengths_N, kind="stable").astype(np.int64)
    ends = np.cumsum(lengths_N[order])
    room = max(1, max_tokens - int(lengths_N.max()))  # the text that straddles a cut goes over the even share
    count = shares * -(-int(ends[-1]) // (shares * room))
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, count) // count, side="right")
    return [chunk for chunk in np.split(order, np.unique(cuts)) if len(chunk)]


def deal(sizes: Sequence[int], shares: int) -> list[list[int]]:
    """Deal pieces out evenly by size: the largest first, each to the share that has least; lists of their numbers."""
    dealt: list[list[int]] = [[] for _ in range(shares)]
    totals = [0] * shares
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number], number)):
        share = totals.index(min(totals))
        dealt[share].append(number)
        totals[share] += sizes[number]
    return dealt


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of `count` examples in one pass: a permutation, a function of (seed, epoch) and nothing else."""
    return np.random.default_rng([_unsigned(seed), epoch]).permutation(count).astype(np.int64)


def spread(order: NDArray[np.int64], texts_NK: NDArray[np.int64], sizes: Sequence[int]) -> list[NDArray[np.int64]]:
    """Deal examples out into batches so that no text occurs twice in a batch.

    Each example in turn goes into the first batch that has room and none of its texts; so an example whose text is in
    the current batch is deferred to a later one. Those that no batch takes change places with an example of another
    batch where both then fit. What is left (a text in more examples than there are batches) goes where there is room:
    the losses' masks by text identity take care of it. sentence-transformers' `NO_DUPLICATES` defers in the same way,
    but makes more, and smaller, batches where texts repeat, so that the number of steps is not known beforehand.

    Args:
        order: a permutation of the examples.
        texts_NK: the numbers of each example's texts.
        sizes: size of each batch. They add up to the number of examples, and differ by one at most.

    Returns:
        A batch for every size, its examples in the order in which they were put in. A function of the arguments alone.
    """
    deal = _Deal(texts_NK.tolist(), sizes)
    left = [row for row in order.tolist() if not deal.defer(row)]
    for row in left:
        if not deal.exchange(row):
            deal.put(row, deal.first_open())
    return [np.array(batch, np.int64) for batch in deal.batches]


class _Deal:
    """Batches that are being filled: what `spread` works on."""

    def __init__(self, texts: list[list[int]], sizes: Sequence[int]) -> None:
        self.texts, self.sizes = texts, sizes
        self.batches: list[list[int]] = [[] for _ in sizes]
        self.held: list[Counter[int]] = [Counter() for _ in sizes]
        self.holders: Counter[int] = Counter()
        """Text -> batches that hold it."""
        self.next: dict[int, int] = {}
        """Text -> no batch before this one takes it."""
        self.open = 0

    def defer(self, row: int) -> bool:
        """Put an example into the first batch that takes it, if there is one."""
        at = max(self._first_without(text) for text in self.texts[row])
        while at < len(self.sizes) and not (self._has_room(at) and self._fits(row, at)):
            at += 1
        if at == len(self.sizes):
            return False
        self.put(row, at)
        return True

    def exchange(self, row: int) -> bool:
        """Make room for an example by moving another one, so that both fit; the batch with room takes that one."""
        if any(self.holders[text] == len(self.sizes) for text in self.texts[row]):
            return False
        target = self.first_open()
        for at in range(len(self.sizes)):
            if not self._fits(row, at):
                continue
            if self._has_room(at):
                self.put(row, at)
                return True
            for place, other in enumerate(self.batches[at]):
                if self._fits(other, target):
                    self.batches[at].pop(place)
                    self._count(other, at, -1)
                    self.put(other, target)
                    self.put(row, at)
                    return True
        return False

    def put(self, row: int, at: int) -> None:
        self.batches[at].append(row)
        self._count(row, at, 1)

    def first_open(self) -> int:
        while not self._has_room(self.open):
            self.open += 1
        return self.open

    def _first_without(self, text: int) -> int:
        at = max(self.first_open(), self.next.get(text, 0))
        while at < len(self.sizes) and (not self._has_room(at) or self.held[at][text]):
            at += 1
        self.next[text] = at
        return at

    def _has_room(self, at: int) -> bool:
        return len(self.batches[at]) < self.sizes[at]

    def _fits(self, row: int, at: int) -> bool:
        held = self.held[at]
        return not any(held[text] for text in self.texts[row])

    def _count(self, row: int, at: int, change: int) -> None:
        held = self.held[at]
        for text in set(self.texts[row]):
            self.holders[text] -= held[text] > 0
            held[text] += change
            self.holders[text] += held[text] > 0


def step_seed(seed: int, step: int, chunk: int = 0) -> int:
    """A seed in [0, 2^63) for the random numbers of one chunk of one step; no state to restore on resume."""
    state = np.random.SeedSequence([_unsigned(seed), step, chunk]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _unsigned(seed: int) -> int:
    return seed % 2**64
