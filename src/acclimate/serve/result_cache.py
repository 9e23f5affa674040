"""What was answered before: the same requests exactly, and, where it is about sure, requests that mean the same.

Both are keyed by all that a reply depends on (space, adapter's hash, query, filter, how many, mode, reranker's hash,
the index's epoch), and by whose key the request came with: nothing is served to another one. The semantic cache is
asked only where it saves more than a vector search: reranked searches and answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from acclimate.core.wording import says_the_same
from acclimate.serve.logs import log
from acclimate.serve.replies import as_json

if TYPE_CHECKING:
    from acclimate.retrieval.semantic_cache import Counts, Nominee, SemanticCache

SAME_SHARE = 0.8
"""Two lists of results are the same where they share so much of the longer one: what a false hit is, of searches."""
SAME_WORDS = 0.9
"""Two answers are the same where they cite the same documents, and the F1 of their words is so high."""
AUDITED = 0.05
"""Share of the semantic hits whose result is computed afterwards: what the rate of false hits is measured by."""
ENTRY_BYTES = 400
"""What an entry takes beside its reply."""

Reply = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """A request, by all that its reply depends on."""

    scope: bytes
    """All but the query and the epoch."""
    epoch: str
    """What changes with every change of the index."""
    query: str

    @property
    def key(self) -> bytes:
        """The same as one digest."""
        return digest(self.scope.hex(), self.epoch, self.query)


class ResultCache:
    """Replies of one service; belongs to its event loop.

    Args:
        max_bytes: of the exact cache; 0 keeps nothing.
        max_entries: of the semantic cache; 0 keeps nothing.
        seed: of its draws.
    """

    def __init__(self, max_bytes: int, max_entries: int, seed: int | None = None) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._exact: OrderedDict[bytes, tuple[Reply, int]] = OrderedDict()
        self.exact_hits = self.exact_misses = 0
        self.semantic = _semantic(max_entries, seed) if max_entries else None
        self._draw = random.Random(seed)
        self._auditing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def keeps_anything(self) -> bool:
        """Whether any reply is kept."""
        return bool(self._max_bytes) or self.semantic is not None

    @property
    def bytes_used(self) -> int:
        """Memory of the exact cache, about."""
        return self._bytes

    @property
    def counts(self) -> Counts | None:
        """What became of the queries that the semantic cache was asked for; None where there is none."""
        return None if self.semantic is None else self.semantic.counts

    def exact(self, identity: Identity | None) -> Reply | None:
        """Give the reply to the same request, if it is there."""
        if identity is None or not self._max_bytes:
            return None
        found = self._exact.get(identity.key)
        if found is None:
            self.exact_misses += 1
            return None
        self._exact.move_to_end(identity.key)
        self.exact_hits += 1
        return {**found[0], "cache": "exact"}

    def look(self, identity: Identity | None, vector: NDArray[np.float32]) -> Nominee[Reply] | None:
        """Give what is nearest to a request, with whether it serves; None where nothing is, or it is not wanted."""
        if self.semantic is None or identity is None:
            return None
        return self.semantic.look(identity.scope, identity.epoch, identity.query, vector)

    def keep(
        self,
        identity: Identity | None,
        reply: Reply,
        vector: NDArray[np.float32] | None = None,
        near: Nominee[Reply] | None = None,
    ) -> None:
        """Take a reply that was computed.

        Args:
            identity: of the request; None: nothing is kept.
            reply: to it.
            vector: of its query, where the semantic cache was asked; None: it was not.
            near: what it has given.
        """
        if identity is None:
            return
        if vector is not None and self.semantic is not None:
            self.semantic.computed(identity.scope, identity.epoch, identity.query, vector, reply, near)
        if not self._max_bytes:
            return
        size = len(as_json(reply)) + ENTRY_BYTES
        if size > self._max_bytes:
            return
        if (before := self._exact.pop(identity.key, None)) is not None:
            self._bytes -= before[1]
        self._exact[identity.key] = reply, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= self._exact.popitem(last=False)[1][1]

    def maybe_audit(self, near: Nominee[Reply], compute: Callable[[], Awaitable[Reply]]) -> None:
        """Compute some of the results that were served, one at a time, beside what is being answered."""
        if self._draw.random() < AUDITED and (self._auditing is None or self._auditing.done()):
            self._auditing = asyncio.get_running_loop().create_task(self._audit(near, compute))

    async def _audit(self, near: Nominee[Reply], compute: Callable[[], Awaitable[Reply]]) -> None:
        assert self.semantic is not None
        try:
            self.semantic.audit(near, await compute())
        except Exception as error:  # its request was answered: nobody waits for it
            log("not audited", level=30, reason=str(error))


def _semantic(max_entries: int, seed: int | None) -> SemanticCache[Reply]:
    from acclimate.retrieval.semantic_cache import SemanticCache  # faiss, which a service without it does not wait for

    return SemanticCache(is_same, max_entries=max_entries, seed=seed)


def served(near: Nominee[Reply], query: str) -> Reply:
    """Give the reply of a semantic hit: another query's, under this query, with how sure it is."""
    estimate = {"similarity": near.similarity, "chance": near.chance}
    own = {"query": query} if "query" in near.entry.result else {}
    return {**near.entry.result, **own, "cache": "semantic", "cache_estimate": estimate}


def is_same(one: Reply, other: Reply) -> bool:
    """Whether one reply could have stood for the other: results by their ids, answers by citations and words."""
    if "hits" in one:
        first, second = ({hit["id"] for hit in reply["hits"]} for reply in (one, other))
        return len(first & second) >= SAME_SHARE * max(len(first), len(second))
    cited = [{citation["id"] for citation in reply["citations"]} for reply in (one, other)]
    if one["answered"] != other["answered"] or cited[0] != cited[1]:
        return False
    texts = [" ".join(_without_numbers(reply)) for reply in (one, other)]
    return says_the_same(texts[0], texts[1], SAME_WORDS)


def digest(*parts: Any) -> bytes:
    """Hash values of JSON; the order of an object's keys does not count."""
    return hashlib.blake2b(as_json([_ordered(part) for part in parts]), digest_size=20).digest()


def _without_numbers(reply: Mapping[str, Any]) -> list[str]:
    """An answer without the numbers of its citations, which are the places of documents in another search."""
    marks = {f"[{citation['number']}]" for citation in reply["citations"]}
    text: str = reply["answer"]
    for mark in marks:
        text = text.replace(mark, " ")
    return text.split()


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((str(name), _ordered(item)) for name, item in value.items())
    return [_ordered(item) for item in value] if isinstance(value, list | tuple) else value
