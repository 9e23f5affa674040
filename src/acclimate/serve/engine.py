"""Engine: the one thread that runs the models, and the calls by which an event loop hands it work.

Texts become tokens outside of that thread: a few of them where they come in, many in a thread of their own. It is
given rows of token ids, which it computes batch by batch as the scheduler deals them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.models.reranker import Reranker
from acclimate.serve.registry import Pinned, Registry
from acclimate.serve.scheduler import Limits
from acclimate.types import Role

Work: TypeAlias = Literal["embed", "rerank"]


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


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What one batch did, for metrics."""

    work: Work
    rows: int
    tokens: int
    fill: float
    """Tokens over the budget of a batch; above 1 for a single row that is larger."""
    waited_s: float
    """How long its oldest row had waited."""
    compute_s: float
    failed_rows: int
    tokens_by_model: Mapping[str, int]
    """Name of the adapter (`base`, or a mixture) -> tokens."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits, and how fast it is worked off."""

    rows: int
    tokens: int
    wait_s: float
    """Seconds until a request that comes now is computed, about."""
    tokens_per_s: Mapping[str, float]
    """Kind of work -> measured rate; without those that have not been measured."""


class Engine:
    """Runs the models of a registry, and maybe a reranker.

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
        raise NotImplementedError

    def start(self) -> None:
        """Start the thread, which warms up first; returns at once."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether it answers: warmed up, alive, and not draining."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether the thread runs and is not stuck in a batch; True while it warms up."""
        raise NotImplementedError

    async def drain(self, deadline_s: float) -> bool:
        """Take no more work, finish what is there, and end the thread.

        Args:
            deadline_s: what is not done by then fails with 503.

        Returns:
            Whether everything was finished.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    async def rerank(self, query: str, texts: Sequence[str], *, deadline_s: float) -> Reranked:
        """Score how well each text answers the query; arguments and errors are like those of `embed`.

        Raises:
            ServiceError: see `embed`; 404 no reranker is served.
        """
        raise NotImplementedError

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of the base's own token ids, without special tokens.

        Raises:
            ServiceError: 422 an id that its vocabulary does not have.
        """
        raise NotImplementedError

    def queue(self) -> QueueState:
        """Return what waits now."""
        raise NotImplementedError
