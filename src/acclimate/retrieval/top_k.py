"""Exact search: which documents have the highest inner product with a query.

Shapes: N queries, M documents, D dimensions, k results. Documents may be a memory map: they are read block by
block, and nothing of the size N x M or M x D is ever held, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.int64]
BlockSearch: TypeAlias = Callable[[Vectors, Vectors, int], tuple[Vectors, Indices]]
"""(query_ND, block_MD, k <= M) -> (scores [N, k], row in the block [N, k]), best first, equal scores in any order."""

BLOCK_DOCUMENTS = 16384
"""Documents searched at a time: 24 MiB of 384 dimensions."""
TIED_ROWS = 64
"""Queries with ties for which all scores of a block are computed together: 4 MiB."""
ROUNDING = 1e-5
"""Scores nearer to each other than this (times the larger one, if that is above 1) may be equal: a library adds a
row's products up in an order that depends on the row's place, so equal vectors get scores that differ in the last bits.
Such scores are computed again, in one order."""


def top_k(
    query_ND: Vectors,
    documents: Vectors,
    k: int,
    *,
    exclude: NDArray[np.bool_] | None = None,
    tie_order: Indices | None = None,
    block: int = BLOCK_DOCUMENTS,
    device: torch.device | str = "cpu",
) -> tuple[Vectors, Indices]:
    """The k documents of the highest inner product for every query, exactly, best first.

    Equal vectors have equal scores, and equal scores are ordered by `tie_order`, also where they straddle the last
    place, so that the result does not depend on the library that searches or on where a document stands. On a CPU
    FAISS searches, elsewhere (and on macOS, where FAISS and torch fight over OpenMP) torch.

    Args:
        query_ND: float32.
        documents: float32 [M, D], an array or a memory map; copied only block by block, and only where needed.
        k: results per query; fewer where there are fewer documents.
        exclude: [M], True for documents to leave out.
        tie_order: [M], a permutation of 0..M-1: each document's place among equals; its index if not given.
        block: documents searched at a time.
        device: where to search.

    Returns:
        Scores float32 [N, k'] and document indices int64 [N, k'], k' = min(k, documents not excluded).
    """
    search = _torch_search(torch.device(device)) if _needs_torch(device) else _faiss_search
    scores = np.empty((len(query_ND), 0), np.float32)
    index = np.empty((len(query_ND), 0), np.int64)
    place_of = np.arange(len(documents)) if tie_order is None else tie_order
    for rows in _blocks(len(documents), exclude, block):
        block_scores, block_index = _search_block(search, query_ND, _rows(documents, rows), place_of[rows], k)
        scores = np.concatenate([scores, block_scores], axis=1)
        index = np.concatenate([index, rows[block_index]], axis=1)
        scores, index = _ordered(query_ND, documents, scores, index, place_of, k)
    return scores, index


def _needs_torch(device: torch.device | str) -> bool:
    return torch.device(device).type != "cpu" or sys.platform == "darwin"


def _blocks(count: int, exclude: NDArray[np.bool_] | None, block: int) -> Iterator[Indices]:
    """Row numbers of each block of documents, without the excluded ones; empty blocks are left out."""
    for start in range(0, count, block):
        rows = np.arange(start, min(start + block, count))
        if exclude is not None:
            rows = rows[~exclude[rows]]
        if len(rows):
            yield rows


def _rows(documents: Vectors, rows: Indices) -> Vectors:
    """Some rows of the documents: a view where they are consecutive."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    within = documents[first:last]
    return np.asarray(within if last - first == len(rows) else within[rows - first])


def _search_block(
    search: BlockSearch, query_ND: Vectors, block_MD: Vectors, place_M: Indices, k: int
) -> tuple[Vectors, Indices]:
    """The best k of one block, in any order; where the k-th and the next score may be equal, `place_M` decides."""
    k = min(k, len(block_MD))
    scores, index = search(query_ND, block_MD, min(k + 1, len(block_MD)))
    if scores.shape[1] > k:
        tied = np.flatnonzero(scores[:, k - 1] - scores[:, k] <= _tolerance(scores[:, k - 1]))
        scores, index = scores[:, :k].copy(), index[:, :k].copy()
        for start in range(0, len(tied), TIED_ROWS):
            some = tied[start : start + TIED_ROWS]
            for row, every in zip(some, query_ND[some] @ block_MD.T, strict=True):
                least = np.partition(every, -k)[-k]
                near = np.flatnonzero(every >= least - _tolerance(least))
                exact = _exact_scores(query_ND[row], block_MD[near])
                best = np.lexsort((place_M[near], -exact))[:k]
                scores[row], index[row] = exact[best], near[best]
    return scores, index


def _ordered(
    query_ND: Vectors, documents: Vectors, scores: Vectors, index: Indices, place_M: Indices, k: int
) -> tuple[Vectors, Indices]:
    """The best k of some results; neighbours whose scores may be equal are scored again, then put in order."""
    order = np.argsort(-scores, axis=1, kind="stable")
    scores, index = np.take_along_axis(scores, order, axis=1), np.take_along_axis(index, order, axis=1)
    near = scores[:, :-1] - scores[:, 1:] <= _tolerance(scores[:, :-1])
    tied = np.zeros(scores.shape, np.bool_)
    tied[:, :-1] |= near
    tied[:, 1:] |= near
    for row in np.flatnonzero(tied.any(axis=1)):
        columns = np.flatnonzero(tied[row])
        scores[row, columns] = _exact_scores(query_ND[row], documents[index[row, columns]])
    best = np.lexsort((place_M[index], -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(index, best, axis=1)


def _tolerance(score: Vectors) -> Vectors:
    """How far from each score another one may be equal to it."""
    tolerance: Vectors = np.float32(ROUNDING) * np.maximum(np.abs(score), np.float32(1))
    return tolerance


def _exact_scores(query_D: Vectors, some_MD: Vectors) -> Vectors:
    """Inner products in double precision, each summed in the same order, so that equal rows have equal scores."""
    products = np.einsum("md,d->m", np.asarray(some_MD, np.float64), np.asarray(query_D, np.float64))
    exact: Vectors = products.astype(np.float32)
    return exact


def _faiss_search(query_ND: Vectors, block_MD: Vectors, k: int) -> tuple[Vectors, Indices]:
    import faiss  # here, because on macOS loading it beside torch is enough to crash

    scores, index = faiss.knn(query_ND, block_MD, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, index


def _torch_search(device: torch.device, block_queries: int = 1024) -> BlockSearch:
    """Search a block with torch, some queries at a time: 64 MiB of scores."""

    def search(query_ND: Vectors, block_MD: Vectors, k: int) -> tuple[Vectors, Indices]:
        block = torch.tensor(block_MD, device=device)
        parts = [
            torch.topk(torch.tensor(query_ND[start : start + block_queries], device=device) @ block.T, k, dim=1)
            for start in range(0, len(query_ND), block_queries)
        ]
        if not parts:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        return (
            torch.cat([part.values for part in parts]).cpu().numpy(),
            torch.cat([part.indices for part in parts]).cpu().numpy(),
        )

    return search
