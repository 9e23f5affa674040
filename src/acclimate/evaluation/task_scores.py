"""How well adapters serve the tasks of a library: measures of each task, and what they say of a hypernetwork.

Shapes: N queries, M documents, K ranks, T tasks, D vector size; A [r, I] and B [O, r] of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core.metrics import first_hits_measures
from acclimate.data.relevance import Keys, RelevanceTask
from acclimate.evaluation.significance import Delta, compare_means
from acclimate.retrieval.top_k import Vectors, top_k

DEPTH = 10
MOST_QUERIES = 100
"""Queries that a task is measured on at most, drawn evenly."""
CLOSE = 0.99
"""Mean cosine of generated updates above which they are all one adapter."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The measures of one task, each the mean over its queries."""

    ndcg: float
    recall: float
    mrr: float


def measured_queries(task: RelevanceTask, most: int = MOST_QUERIES) -> Keys:
    """Numbers of the queries that a task is measured on: at most so many, at even distances."""
    places = np.linspace(0, len(task.usable) - 1, min(most, len(task.usable))).round().astype(np.int64)
    return task.usable[places]


def score_task(task: RelevanceTask, queries: Keys, query_ND: Vectors, document_MD: Vectors) -> TaskScore:
    """Rank a task's documents for some of its queries.

    Args:
        task: says what is relevant, and what is ranked.
        queries: numbers of the queries.
        query_ND: their unit vectors.
        document_MD: unit vectors of the documents that the task ranks.
    """
    _, place_NK = top_k(query_ND, np.ascontiguousarray(document_MD), DEPTH)
    relevant_NM = task.relevant(queries, task.ranked())
    hit_NK = np.take_along_axis(relevant_NM, place_NK, 1)
    return TaskScore(*first_hits_measures(hit_NK, relevant_NM.sum(1)))


class Collapse(TypedDict):
    """Whether generated adapters differ."""

    cosine: float
    """Mean cosine of the updates of two tasks."""
    spread: float
    """Standard deviation of the updates around their mean, relative to the mean's size."""
    collapsed: bool


def collapse(
    updates: Sequence[Mapping[str, tuple[Tensor, Tensor]]], shared: Mapping[str, tuple[Tensor, Tensor]]
) -> Collapse:
    """Compare what was generated for several tasks with each other, the multi-task adapter taken off.

    A hypernetwork that ignores its condition gives all tasks one adapter: cosine 1, spread 0. No [O, I] matrix is
    built: the inner product of two updates is the sum of (B^T B') * (A A'^T).

    Args:
        updates: layer -> (A [r, I], B [O, r]) of each task; two or more.
        shared: of the multi-task adapter.
    """
    less = [
        {
            name: (torch.cat([A_rI, shared[name][0]]), torch.cat([B_Or, -shared[name][1]], 1))
            for name, (A_rI, B_Or) in modules.items()
        }
        for modules in updates
    ]
    gram_TT = torch.zeros(len(less), len(less), dtype=torch.float64)
    for name in less[0]:
        A_TrI = torch.stack([modules[name][0] for modules in less]).double()
        B_TOr = torch.stack([modules[name][1] for modules in less]).double()
        for row in range(len(less)):
            gram_TT[row] += ((B_TOr[row].T @ B_TOr) * (A_TrI[row] @ A_TrI.mT)).sum((1, 2))
    size_T = gram_TT.diagonal().clamp_min(1e-18).sqrt()
    cosine_TT = gram_TT / (size_T[:, None] * size_T[None])
    count = len(less)
    cosine = float((cosine_TT.sum() - cosine_TT.diagonal().sum()) / (count * (count - 1)))
    mean = float(gram_TT.mean())
    spread = float((gram_TT.diagonal().mean() - mean).clamp_min(0).sqrt() / max(mean, 1e-18) ** 0.5)
    return {"cosine": cosine, "spread": spread, "collapsed": cosine > CLOSE}


def difference(
    before: Mapping[str, TaskScore],
    after: Mapping[str, TaskScore],
    names: Sequence[str],
    *,
    flips: int,
    confidence: float,
    seed: int,
) -> Delta:
    """NDCG@10 of one arm less that of another over some tasks, with its interval over tasks."""
    sides: list[NDArray[np.float64]] = [np.array([side[name].ndcg for name in names]) for side in (before, after)]
    return compare_means(*sides, flips=flips, confidence=confidence, seed=seed)
