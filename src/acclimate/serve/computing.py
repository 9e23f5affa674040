"""What the engine's thread computes: a batch's rows through the models, row by row where a batch fails.

Shapes: N rows, D dimensions.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.models.adapter_set import AdapterSet, Choice
from acclimate.models.backends.graph_set import GraphSet
from acclimate.models.reranker import Reranker
from acclimate.models.reranker_kinds import Pairs
from acclimate.models.tokens import Tokens
from acclimate.serve.errors import ServiceError
from acclimate.serve.scheduler import Batch

Work: TypeAlias = Literal["embed", "rerank"]


@dataclass(frozen=True, slots=True, eq=False)
class EmbedTask:
    """Texts of one request, as tokens."""

    tokens: Tokens
    adapters: AdapterSet | GraphSet
    choice: Choice
    dim: int
    model: str
    """Name of what answers, for metrics."""


@dataclass(frozen=True, slots=True, eq=False)
class RerankTask:
    """Pairs of one request, as tokens."""

    pairs: Pairs


@dataclass(slots=True, eq=False)
class Call:
    """A request that waits for its rows; one thread fills it, and then its event loop reads it."""

    task: EmbedTask | RerankTask
    results: NDArray[np.float32]
    """[N, D] vectors, or [N] scores."""
    left: int
    """Rows that are not computed yet."""
    answer: asyncio.Future[None]
    error: ServiceError | None = None


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
    tokens_by_model: dict[str, int] = field(default_factory=dict)
    """Name of the adapter (`base`, or a mixture) -> tokens; empty for rerank."""


def compute(batch: Batch, reranker: Reranker | None) -> list[NDArray[np.float32] | ServiceError]:
    """Compute the rows of a batch; where it fails, or gives what is no vector, each such row alone, once more.

    Returns:
        For each row a vector [D] or a score [], or why there is none.
    """
    tasks = [(job.payload.task, row) for job, row in batch.rows]
    try:
        results = _run(tasks, reranker)
        failed = [place for place, good in enumerate(_good(results)) if not good]
    except Exception:
        results, failed = None, list(range(len(tasks)))
    found: list[NDArray[np.float32] | ServiceError] = [] if results is None else list(results)
    for place in failed:
        again = _alone(tasks[place], reranker)
        found[place : place + 1] = [again]
    return found


def tokens_by_model(batch: Batch) -> dict[str, int]:
    """Name of what answers -> tokens of the batch."""
    counts: Counter[str] = Counter()
    for job, row in batch.rows:
        task = job.payload.task
        if isinstance(task, EmbedTask):
            counts[task.model] += job.tokens[row]
    return dict(counts)


def _alone(task: tuple[EmbedTask | RerankTask, int], reranker: Reranker | None) -> NDArray[np.float32] | ServiceError:
    try:
        results = _run([task], reranker)
    except Exception as error:
        return ServiceError(f"the computation failed ({type(error).__name__}: {error})", status=500)
    if not _good(results)[0]:
        what = "a vector" if results.ndim == 2 else "a score"
        return ServiceError(f"the model gave {what} that is not finite, or zero", status=500)
    row: NDArray[np.float32] = results[0]
    return row


def _run(tasks: Sequence[tuple[EmbedTask | RerankTask, int]], reranker: Reranker | None) -> NDArray[np.float32]:
    """[N, D] or [N]. All tasks are of one kind, and texts of one set of adapters and one size: the scheduler's lane."""
    first = tasks[0][0]
    if isinstance(first, EmbedTask):
        texts = [(task, row) for task, row in tasks if isinstance(task, EmbedTask)]
        tokens = joined([task.tokens.row(row) for task, row in texts])
        return first.adapters.encode_tokens(tokens, [task.choice for task, _ in texts], first.dim)
    assert reranker is not None
    pairs = [(task.pairs, row) for task, row in tasks if isinstance(task, RerankTask)]
    return reranker.score_tokens(
        Pairs(
            joined([of_task.tokens.row(row) for of_task, row in pairs]),
            np.array([of_task.first[row] for of_task, row in pairs], np.int64),
        )
    )


def joined(rows: Sequence[NDArray[np.int32]]) -> Tokens:
    """Texts that lie in different places, as one."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return Tokens(np.concatenate(rows) if len(rows) > 1 else rows[0], offsets)


def _good(results: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows are finite scores, or finite vectors of length 1 [N]."""
    if results.ndim == 1:
        return np.isfinite(results)
    squares: NDArray[np.float32] = np.einsum("nd,nd->n", results, results)
    good: NDArray[np.bool_] = np.abs(squares - 1.0) < 0.1
    return good  # not so for what is not a number, infinite or zero
