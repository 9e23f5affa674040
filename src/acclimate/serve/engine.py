"""Engine: the one thread that runs the models, and the calls by which an event loop hands it work.

Texts become tokens outside of that thread: a few of them where they come in, many in a thread of their own. It is
given rows of token ids, which it computes batch by batch as the scheduler deals them out.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from acclimate.errors import AcclimateError, UsageError
from acclimate.models.adapter_set import Treatment
from acclimate.models.chunked import unique_rows
from acclimate.models.reranker import Reranker
from acclimate.models.tokens import tokenise
from acclimate.serve.computing import BatchRecord, EmbedTask, RerankTask
from acclimate.serve.embedding_cache import CacheState, EmbeddingCache, Entry
from acclimate.serve.errors import ServiceError
from acclimate.serve.model_thread import ModelThread, QueueState
from acclimate.serve.registry import Pinned, Registry
from acclimate.serve.scheduler import Job, Limits
from acclimate.types import Role

__all__ = ["BatchRecord", "CacheState", "Embedded", "Engine", "QueueState", "Reranked"]

INLINE_CHARS = 4000
"""Texts of no more characters together become tokens where they come in: faster than to wake another thread."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """The answer of `Engine.embed`."""

    vectors: NDArray[np.float32]
    """[N, D], rows of length 1, in the order of the texts."""
    tokens: int
    """Tokens of all texts as the model reads them: with prompts and special tokens, after cutting; cached ones too."""


@dataclass(frozen=True, slots=True, eq=False)
class Reranked:
    """The answer of `Engine.rerank`."""

    scores: NDArray[np.float32]
    """Raw logits [N], in the order of the texts."""
    tokens: int


class Engine:
    """Runs the models of a registry, and maybe a reranker. Its coroutines belong to one event loop.

    Args:
        registry: its base is what the thread runs.
        reranker: for `rerank`; None where there is none.
        limits: of requests and batches.
        cache_bytes: of the exact embedding cache; 0 for none.
        on_batch: called in the engine's thread after every batch; must be quick.
        stuck_after_s: a batch that takes longer means that the thread hangs.
    """

    def __init__(
        self,
        registry: Registry,
        reranker: Reranker | None = None,
        *,
        limits: Limits | None = None,
        cache_bytes: int = 0,
        on_batch: Callable[[BatchRecord], None] | None = None,
        stuck_after_s: float = 120.0,
    ) -> None:
        self.registry = registry
        self._reranker = reranker
        self._limits = limits or Limits()
        self._cache = EmbeddingCache(cache_bytes) if cache_bytes else None
        self._models = ModelThread(registry, reranker, self._limits, on_batch, stuck_after_s)
        self._tokenisers = ThreadPoolExecutor(1, "acclimate-tokens")

    def start(self) -> None:
        """Start the thread, which warms up first; returns at once."""
        self._models.start()

    @property
    def ready(self) -> bool:
        """Whether it answers: warmed up, alive, and not draining."""
        return self._models.ready

    @property
    def alive(self) -> bool:
        """Whether the thread runs and is not stuck in a batch; True while it warms up."""
        return self._models.alive

    async def drain(self, deadline_s: float) -> bool:
        """Take no more work, finish what is there, and end the thread.

        Args:
            deadline_s: what is not done by then fails with 503.

        Returns:
            Whether everything was finished.
        """
        finished = await self._models.drain(deadline_s)
        self._tokenisers.shutdown(wait=False, cancel_futures=True)
        return finished

    async def embed(
        self,
        texts: Sequence[str],
        *,
        pinned: Pinned,
        role: Role,
        task: str | None = None,
        dim: int | None = None,
        deadline_s: float,
    ) -> Embedded:
        """Vectors of texts. Cancelling the awaiting task drops the work that is not done yet.

        Args:
            texts: one or more, without prompts.
            pinned: what they are answered with.
            role: query or document.
            task: a task of the model's prompts; the default one if None.
            dim: keep so many leading dimensions, renormalised (Matryoshka); all of the model's if None.
            deadline_s: seconds from now.

        Raises:
            ServiceError: 400 an unknown task, or `dim` that the model does not have; 413 more rows or tokens than one
                request may have; 422 no texts, or one that is not valid Unicode; 429 too much is waiting; 500 the
                computation failed, or gave a vector that is not finite or zero; 503 not ready; 504 not done in time.
        """
        self._check_dim(pinned, dim)
        try:
            how = pinned.adapters.treatment(pinned.weights, role, task)
        except UsageError as error:
            raise ServiceError(error.found, status=400, field="task", possible=error.possible, fix=error.fix) from None
        unique, places = self._admissible(texts)
        deadline = time.monotonic() + deadline_s
        entries = await self._within(deadline_s, self._entries(unique, pinned, how, role, deadline))
        first, lengths = entries[0].vector[None], [entry.tokens for entry in entries]
        vectors = first if len(entries) == 1 else np.stack([entry.vector for entry in entries])
        if dim is not None and dim < how.dim:
            vectors = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
        if len(unique) < len(texts):
            vectors = vectors[places]
        return Embedded(vectors, sum(lengths[place] for place in places))

    async def rerank(self, query: str, texts: Sequence[str], *, deadline_s: float) -> Reranked:
        """Score how well each text answers the query; arguments and errors are like those of `embed`.

        Raises:
            ServiceError: see `embed`; 404 no reranker is served.
        """
        if self._reranker is None:
            raise ServiceError("no reranker is served", status=404, fix="Start the service with --reranker.")
        unique, places = self._admissible(texts, "documents")
        deadline = time.monotonic() + deadline_s
        scores, lengths = await self._within(deadline_s, self._scores(self._reranker, query, unique, deadline))
        return Reranked(scores[places], sum(lengths[place] for place in places))

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of the base's own token ids, without special tokens.

        Raises:
            ServiceError: 422 an id that its vocabulary does not have.
        """
        tokenizer = self.registry.base.tokenizer
        size = len(tokenizer)
        if wrong := [number for number in ids if not 0 <= number < size]:
            raise ServiceError(
                f"token id {wrong[0]}",
                status=422,
                field="input",
                possible=f"0 to {size - 1}, ids of the base's tokenizer",
            )
        text: str = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def queue(self) -> QueueState:
        """Return what waits now."""
        return self._models.queue()

    def cache(self) -> CacheState | None:
        """Return what the embedding cache holds; None where there is none."""
        return None if self._cache is None else self._cache.state

    def _check_dim(self, pinned: Pinned, dim: int | None) -> None:
        served = pinned.served
        if dim is None or dim == served.dim:
            return
        if not served.matryoshka or not 0 < dim < served.dim:
            possible = f"1 to {served.dim}" if served.matryoshka else f"{served.dim}: it is no Matryoshka model"
            raise ServiceError(
                f"dimensions = {dim} of {pinned.name}", status=400, field="dimensions", possible=possible
            )

    def _admissible(self, texts: Sequence[str], field: str = "input") -> tuple[list[str], list[int]]:
        """The different texts, and the place of each text among them, where a request may have them."""
        self._models.check_ready()
        if not texts:
            raise ServiceError("no texts", status=422, field=field, possible="one or more")
        self._limits.check_rows(len(texts))
        if len(texts) == 1:
            return [texts[0]], [0]
        unique, places = unique_rows(texts)
        return unique, places.tolist()

    async def _within(self, deadline_s: float, answer: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(deadline_s):
                return await answer
        except TimeoutError:
            raise ServiceError(
                f"not done within {deadline_s:g} s", status=504, fix="Send fewer texts, or try again."
            ) from None

    async def _entries(
        self, texts: Sequence[str], pinned: Pinned, how: Treatment, role: Role, deadline: float
    ) -> Sequence[Entry]:
        async def compute_them(places: Sequence[int]) -> Sequence[Entry]:
            return await self._computed([texts[place] for place in places], pinned, how, deadline)

        if self._cache is None:
            return await compute_them(range(len(texts)))
        served = pinned.served
        active = pinned.sha256 if how.choice.mixture else None
        decisive = (served.base_sha256, active, how.prompt, how.max_tokens, how.choice.pooling, how.dim, role)
        key = hashlib.blake2b(repr(decisive).encode(), digest_size=16)
        return await self._cache.vectors([_key(key, text) for text in texts], compute_them)

    async def _computed(self, texts: Sequence[str], pinned: Pinned, how: Treatment, deadline: float) -> Sequence[Entry]:
        tokenizer = self.registry.base.tokenizer
        prompted = [how.prompt + text for text in texts] if how.prompt else texts
        tokens = await self._tokenised(lambda: tokenise(tokenizer, prompted, how.max_tokens), texts, deadline)
        lengths = tokens.lengths.tolist()
        task = EmbedTask(tokens, pinned.adapters, how.choice, how.dim, pinned.name)
        lane = ("embed", pinned.adapters, how.dim)
        job = Job("embed", lane, how.choice, lengths, deadline)
        vectors = await self._models.answer(job, task, np.empty((len(texts), how.dim), np.float32))
        return [Entry(vector, length) for vector, length in zip(vectors, lengths, strict=True)]

    async def _scores(
        self, reranker: Reranker, query: str, texts: Sequence[str], deadline: float
    ) -> tuple[NDArray[np.float32], list[int]]:
        queries = [query] * len(texts)
        pairs = await self._tokenised(lambda: reranker.tokenise(queries, texts), [*queries, *texts], deadline)
        lengths = pairs.tokens.lengths.tolist()
        job = Job("rerank", "rerank", None, lengths, deadline)
        return await self._models.answer(job, RerankTask(pairs), np.empty(len(texts), np.float32)), lengths

    async def _tokenised(self, tokenised: Callable[[], T], texts: Sequence[str], deadline: float) -> T:
        self._models.check_room(deadline)
        try:
            if sum(map(len, texts)) <= INLINE_CHARS:
                return tokenised()
            return await asyncio.get_running_loop().run_in_executor(self._tokenisers, tokenised)
        except AcclimateError as error:
            raise ServiceError(error.found, status=422, field="input", possible=error.possible, fix=error.fix) from None


def _key(prefix: Any, text: str) -> bytes:
    key = prefix.copy()
    key.update(text.encode("utf-8", "surrogatepass"))
    digest: bytes = key.digest()
    return digest
