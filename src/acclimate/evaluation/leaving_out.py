"""Candidates that are measured on a user's own pairs, each made without the pairs that it ranks for.

Shapes: L pairs that are left out together, X documents, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

from acclimate.evaluation.own_check import Ranker
from acclimate.models.hypernetwork.candidates import MULTI_TASK, Candidates, without
from acclimate.models.hypernetwork.condition import ConditionVectors
from acclimate.models.hypernetwork.layers import Weights
from acclimate.retrieval.top_k import Vectors

PARTS = 4
"""Parts of the pairs that are left out in turn where documents are encoded for every candidate."""
Encoded: TypeAlias = Callable[[Weights | None, tuple[int, ...]], tuple[Vectors, Vectors]]
"""A candidate's weights, None for the base's, and numbers of pairs -> their queries [L, D] and all documents [X, D]."""


def ranker(
    candidates: Candidates, name: str, vectors: ConditionVectors, pairs: Sequence[tuple[str, str]], encoded: Encoded
) -> Ranker:
    """Rank by a candidate that has not seen the pair.

    Args:
        candidates: one of them is made again and again.
        name: which one.
        vectors: of the whole condition.
        pairs: (query, document), row by row those of the vectors.
        encoded: the pairs' queries and the documents by given weights.
    """

    @lru_cache(maxsize=1)  # those that are left out together follow each other
    def without_them(numbers: tuple[int, ...]) -> tuple[Vectors, Vectors]:
        return encoded(candidates.weights(name, without(vectors, pairs, numbers)), numbers)

    def rank(number: int) -> tuple[Vectors, Vectors]:
        numbers = left_out(candidates, name, len(pairs), number)
        query_LD, document_XD = without_them(numbers)
        return query_LD[numbers.index(number)], document_XD

    return rank


def left_out(candidates: Candidates, name: str, pairs: int, number: int) -> tuple[int, ...]:
    """Numbers of the pairs that a candidate is made without when it ranks for one of them.

    That one alone where only queries are changed. Where documents have to be encoded by every candidate, a quarter of
    the pairs at a time; all of them by the multi-task adapter, which none has a part in.
    """
    if name == MULTI_TASK:
        return tuple(range(pairs))
    if candidates.trained.sides == "query":
        return (number,)
    return tuple(other for other in range(pairs) if other * PARTS // pairs == number * PARTS // pairs)
