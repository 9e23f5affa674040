"""Some queries with their ranked candidates, while they are mined.

Shapes: N queries of a block, C candidates per query, P pairs of a query and a document that is known for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate import processes
from acclimate.mining.mining_input import MiningInput
from acclimate.retrieval.top_k import Indices, Vectors


@dataclass(frozen=True, slots=True)
class RankedBlock:
    """Some queries, their ranked candidates, and their positives with scores."""

    source: MiningInput
    queries: list[str]
    index: Indices
    """[N, C] documents, best first."""
    score: Vectors
    """[N, C]"""
    usable: NDArray[np.bool_]
    """[N, C] False where a document is already known for the query, or nearly one of its positives: never mined."""
    near_N: Indices
    """[N] how many of the candidates are nearly a positive."""
    known_scores: list[list[float]]
    """Scores of each query's positives, then of its given negatives."""

    @property
    def lowest(self) -> Vectors:
        """[N] the score of each query's lowest positive."""
        counts = [len(self.source.positives[query]) for query in self.queries]
        return np.array(
            [min(found[:count]) for found, count in zip(self.known_scores, counts, strict=True)], np.float32
        )


def with_rows(block: RankedBlock, rows: Indices, deeper: RankedBlock) -> RankedBlock:
    """The block with some of its queries ranked deeper."""
    (index, score, usable), new = _equally_wide([block, deeper])
    near_N, known = block.near_N.copy(), list(block.known_scores)
    index[rows], score[rows], usable[rows] = new
    near_N[rows] = deeper.near_N
    for row, scores in zip(rows.tolist(), deeper.known_scores, strict=True):
        known[row] = scores
    return replace(block, index=index, score=score, usable=usable, near_N=near_N, known_scores=known)


def whole(block: RankedBlock, queries: list[str]) -> RankedBlock:
    """Put the processes' parts of a block together."""
    fields = ("index", "score", "usable", "near_N", "known_scores")
    gathered = processes.gather(tuple(getattr(block, name) for name in fields))
    parts = [replace(block, **dict(zip(fields, part, strict=True))) for part in gathered]
    index, score, usable = (np.concatenate(columns) for columns in zip(*_equally_wide(parts), strict=True))
    return replace(
        block,
        queries=queries,
        index=index,
        score=score,
        usable=usable,
        near_N=np.concatenate([part.near_N for part in parts]),
        known_scores=[scores for part in parts for scores in part.known_scores],
    )


def _equally_wide(blocks: Sequence[RankedBlock]) -> list[tuple[Indices, Vectors, NDArray[np.bool_]]]:
    """Each block's candidates, their scores and whether they are usable; narrower ones end in places that are not."""
    width = max(block.index.shape[1] for block in blocks)

    def padded(values: NDArray[Any], nothing: float) -> NDArray[Any]:
        return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=nothing)

    return [(padded(one.index, 0), padded(one.score, -np.inf), padded(one.usable, False)) for one in blocks]


def never_mined(source: MiningInput, query: str) -> set[int]:
    """Documents that are never mined for a query: its positives, itself (by its text or its id), and negatives that it
    already has; of documents that are the same text the first, since the others are never mined."""
    known = source.first[[*source.positives[query], *source.given[query], *source.own.get(query, ())]].tolist()
    return {*known, *([source.same_as[query]] if query in source.same_as else [])}


def known_pairs(source: MiningInput, queries: list[str]) -> tuple[Indices, Indices]:
    """Row of the query and index of the document, for every positive and then every given negative of every query."""
    pairs = [
        (row, index) for row, query in enumerate(queries) for index in (*source.positives[query], *source.given[query])
    ]
    row_P, index_P = np.array(pairs, np.int64).reshape(-1, 2).T
    return row_P, index_P


def split_by_query(scores: Vectors, row_P: Indices, count: int) -> list[list[float]]:
    """Scores of (query, positive) pairs, by query."""
    parts: list[list[float]] = [[] for _ in range(count)]
    for row, score in zip(row_P.tolist(), scores.tolist(), strict=True):
        parts[row].append(score)
    return parts
