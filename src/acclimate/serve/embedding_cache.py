"""EmbeddingCache: vectors by what exactly decides them, bounded in bytes; each is computed once, whoever asks.

It belongs to one event loop and is not locked: nothing in it waits but `vectors`, and that while nothing is half done.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

ENTRY_BYTES = 250
"""What an entry takes beside its vector: key, array object, place in the table."""


class Entry(NamedTuple):
    """A vector, and how many tokens its text has."""

    vector: NDArray[np.float32]
    tokens: int


class CacheState(NamedTuple):
    """What the cache holds, and how often it helped."""

    entries: int
    bytes: int
    hits: int
    misses: int


Compute: TypeAlias = Callable[[Sequence[int]], Awaitable[Sequence[Entry]]]
"""Places among the keys -> their entries."""


class EmbeddingCache:
    """The vectors used last.

    Args:
        max_bytes: of vectors and keys; the longest unused are forgotten.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._hits = self._misses = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._flights: dict[bytes, asyncio.Future[dict[bytes, Entry]]] = {}
        """Key -> what becomes of the request that computes it now; without it, if that one fails."""

    @property
    def state(self) -> CacheState:
        """What it holds now."""
        return CacheState(len(self._entries), self._bytes, self._hits, self._misses)

    async def vectors(self, keys: Sequence[bytes], compute: Compute) -> list[Entry]:
        """Give the entries of keys: those that are kept, those that another request computes now, and new ones.

        Args:
            keys: different ones.
            compute: asked once for all that nobody has or computes. Where another request fails or is cancelled, what
                it was to compute is asked for too: a failure is the failure of one request.
        """
        found = {key: entry for key in keys if (entry := self._kept(key)) is not None}
        self._hits += len(found)
        while missing := [place for place, key in enumerate(keys) if key not in found]:
            others = {key: self._flights[key] for place in missing if (key := keys[place]) in self._flights}
            own = [place for place in missing if keys[place] not in others]
            if own:
                found |= await self._compute(keys, own, compute)
            for key, flight in others.items():
                landed = await asyncio.shield(flight)
                if key in landed:
                    self._hits += 1
                    found[key] = landed[key]
        return [found[key] for key in keys]

    async def _compute(self, keys: Sequence[bytes], own: Sequence[int], compute: Compute) -> dict[bytes, Entry]:
        flight: asyncio.Future[dict[bytes, Entry]] = asyncio.get_running_loop().create_future()
        self._flights |= {keys[place]: flight for place in own}
        landed: dict[bytes, Entry] = {}
        try:
            entries = await compute(own)
            landed = {keys[place]: entry for place, entry in zip(own, entries, strict=True)}
        finally:
            for place in own:
                del self._flights[keys[place]]
            flight.set_result(landed)
        self._misses += len(own)
        for key, entry in landed.items():
            self._keep(key, entry)
        return landed

    def _kept(self, key: bytes) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def _keep(self, key: bytes, entry: Entry) -> None:
        own = Entry(entry.vector.copy(), entry.tokens)  # a row of a batch would keep the whole batch
        own.vector.flags.writeable = False
        if (before := self._entries.pop(key, None)) is not None:
            self._bytes -= before.vector.nbytes + ENTRY_BYTES
        self._entries[key] = own
        self._bytes += own.vector.nbytes + ENTRY_BYTES
        while self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.vector.nbytes + ENTRY_BYTES
