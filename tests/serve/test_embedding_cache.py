"""The cache: bounded in bytes, each vector computed once, and a failure of one request is not another's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.serve.embedding_cache import ENTRY_BYTES, EmbeddingCache, Entry

DIM = 4
BYTES = DIM * 4 + ENTRY_BYTES


def key(name: str) -> bytes:
    return name.encode()


class Source:
    """Computes entries, and counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: Counter[bytes] = Counter()
        self.gate = asyncio.Event()
        self.fails = False

    async def entries(self, keys: Sequence[bytes], places: Sequence[int]) -> list[Entry]:
        self.asked.update(keys[place] for place in places)
        await self.gate.wait()
        if self.fails:
            raise RuntimeError("failed")
        return [Entry(np.full(DIM, keys[place][0], np.float32), len(keys[place])) for place in places]

    async def ask(self, cache: EmbeddingCache, *names: str) -> list[Entry]:
        keys = [key(name) for name in names]
        return await cache.vectors(keys, lambda places: self.entries(keys, places))


@settings(deadline=None, max_examples=60)
@given(
    requests=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True), max_size=20),
    room=st.integers(0, 6),
)
def test_it_gives_what_is_asked_and_keeps_what_was_used_last(requests: list[list[str]], room: int) -> None:
    async def main() -> None:
        source, cache = Source(), EmbeddingCache(room * BYTES)
        source.gate.set()
        kept: list[str] = []
        misses = 0
        for names in requests:
            found = await source.ask(cache, *names)
            assert [entry.vector[0] for entry in found] == [ord(name) for name in names]
            new = [name for name in names if name not in kept]
            misses += len(new)
            used = [name for name in names if name in kept]
            kept = ([name for name in kept if name not in used] + used + new)[-room:] if room else []
            state = cache.state
            assert (state.entries, state.bytes, state.misses) == (len(kept), len(kept) * BYTES, misses)

    asyncio.run(main())


def test_two_requests_at_once_compute_a_vector_once() -> None:
    async def main() -> None:
        source, cache = Source(), EmbeddingCache(0)  # also where nothing is kept
        first = asyncio.create_task(source.ask(cache, "a", "b"))
        await asyncio.sleep(0)
        second = asyncio.create_task(source.ask(cache, "b", "c"))
        await asyncio.sleep(0)
        source.gate.set()
        assert [entry.vector[0] for entry in await first + await second] == [ord(name) for name in "abbc"]
        assert source.asked == Counter({key("a"): 1, key("b"): 1, key("c"): 1})

    asyncio.run(main())


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_where_the_first_request_ends_the_second_computes(how: str) -> None:
    async def main() -> None:
        broken, sound, cache = Source(), Source(), EmbeddingCache(10 * BYTES)
        sound.gate.set()
        first = asyncio.create_task(broken.ask(cache, "a"))
        await asyncio.sleep(0)
        second = asyncio.create_task(sound.ask(cache, "a"))
        await asyncio.sleep(0)
        assert not second.done() and not sound.asked
        if how == "failed":
            broken.fails = True
            broken.gate.set()
        else:
            first.cancel()
        with pytest.raises((RuntimeError, asyncio.CancelledError)):
            await first
        assert (await second)[0].tokens == 1
        assert sound.asked[key("a")] == 1

    asyncio.run(main())


def test_a_kept_vector_cannot_be_changed_and_keeps_no_batch_alive() -> None:
    async def main() -> None:
        source, cache = Source(), EmbeddingCache(10 * BYTES)
        source.gate.set()
        await source.ask(cache, "a", "b")
        (entry,) = await source.ask(cache, "a")
        assert entry.vector.base is None
        with pytest.raises(ValueError, match="read-only"):
            entry.vector[0] = 1.0

    asyncio.run(main())
