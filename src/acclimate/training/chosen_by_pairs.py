"""What `generate` would choose, over many held-out tasks: does the check on a user's own few pairs keep harm away?

For each task some pairs are drawn as a user might have them, the selection of `generate` (`evaluation.own_check` over
the candidates) picks one, and that is measured on the task's test queries.

Shapes: P pairs, X documents, D vector size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from acclimate.data.relevance import Keys, RelevanceTask
from acclimate.evaluation.own_check import BASE, Ranker, own_check
from acclimate.evaluation.significance import compare_means
from acclimate.evaluation.task_scores import TaskScore
from acclimate.models.hypernetwork.candidates import Candidates, without
from acclimate.models.hypernetwork.condition import ConditionVectors
from acclimate.models.hypernetwork.layers import QUERY_VECTOR, mapped, of_task
from acclimate.models.hypernetwork.saving import TrainedNetwork
from acclimate.progress import progress
from acclimate.retrieval.top_k import Vectors
from acclimate.training.held_out_tasks import HeldOutTasks, evenly_drawn

PAIRS = (8, 16, 32)
DISTRACTORS = 500
"""Training documents of the task among which a pair's document has to be found, as a user's `--corpus`."""
TOLERATED = 0.01
"""The bar: what was chosen is on average worse than the base by no more than this."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen for a task from so many pairs, and what it is worth."""

    task: str
    pairs: int
    name: str
    """The candidate's name."""
    gain: float
    """NDCG@10 on the test less the base's."""
    best_gain: float
    """The same of the candidate that is best on the test: what a perfect choice would bring."""


def chosen_by_pairs(world: HeldOutTasks, trained: TrainedNetwork, *, described: bool = True) -> list[Chosen]:
    """Choose for every task, from 8, 16 and 32 of its pairs.

    Args:
        world: the tasks, with the vectors of all their training texts.
        trained: a hypernetwork that changes queries only.
        described: a description is given beside the pairs.
    """
    candidates, found = Candidates(trained), []
    tasks = world.library.train.tasks
    with progress("choose by pairs", len(tasks) * len(PAIRS), "choices") as advance:
        for number, task in enumerate(tasks):
            one = world.only([number])
            base = _ndcg(one.score([None]))
            for count in PAIRS:
                user = _user(world, number, task, count, described)
                assert user.vectors.query_PD is not None  # drawn with pairs
                rankers = {BASE: _ranker(user, user.vectors.query_PD)}
                for name in candidates.names:
                    rankers[name] = _ranker(user, _moved(world, candidates, name, user))
                check = own_check(rankers, user.pairs, len(user.document_XD) - 1, world.seed)
                gains = {BASE: 0.0}
                for name in candidates.names:
                    weights = candidates.weights(name, user.vectors)
                    assert weights is not None  # there are pairs
                    gains[name] = _ndcg(one.score([of_task(weights, 0)])) - base
                chosen = check["best"]
                found.append(Chosen(task.name, count, chosen, gains[chosen], max(gains.values())))
                advance(1)
    return found


@dataclass(frozen=True, eq=False)
class _User:
    """A user of a task: a condition with pairs, and the documents among which theirs are looked for."""

    vectors: ConditionVectors
    pairs: list[tuple[str, str]]
    """As texts."""
    queries: Keys
    """Numbers of their queries [P] among the training's."""
    document_XD: Vectors
    """The pairs' documents, then others."""


def _user(world: HeldOutTasks, number: int, task: RelevanceTask, count: int, described: bool) -> _User:
    generator = np.random.default_rng([world.seed, number, count])
    queries = generator.permutation(task.usable)[:count]
    documents = task.draw_relevant(queries, generator)
    texts = world.library.train
    pairs = [
        (texts.queries[query], texts.documents[document])
        for query, document in zip(queries.tolist(), documents.tolist(), strict=True)
    ]
    others = evenly_drawn(np.setdiff1d(task.ranked(), documents).tolist(), DISTRACTORS)
    shown = world.shown
    vectors = ConditionVectors(
        description_D=world.tested.descriptions[number][0] if described else None,
        query_PD=shown.query_ND[queries],
        document_PD=shown.document_MD[documents],
    )
    return _User(vectors, pairs, queries, shown.document_MD[[*documents.tolist(), *others]])


def _ranker(user: _User, moved_PD: Vectors) -> Ranker:
    """Rank by query vectors [P, D], each made without its own pair."""

    def rank(number: int) -> tuple[Vectors, Vectors]:
        return moved_PD[number], user.document_XD

    return rank


def _moved(world: HeldOutTasks, candidates: Candidates, name: str, user: _User) -> Vectors:
    """The pairs' query vectors [P, D] by a candidate, each made without the pair; the base's where nothing is left."""
    assert user.vectors.query_PD is not None  # drawn with pairs
    moved_PD = user.vectors.query_PD.copy()
    for number, query in enumerate(user.queries):
        weights = candidates.weights(name, without(user.vectors, user.pairs, number))
        if weights is None:
            continue
        if QUERY_VECTOR in weights:
            moved_PD[number] = mapped(torch.from_numpy(moved_PD[number])[None, None], weights)[0, 0].numpy()
        else:
            moved_PD[number] = world.encoded(weights, np.array([query]), part="train")[0]
    return moved_PD


def _ndcg(scores: dict[str, TaskScore]) -> float:
    (score,) = scores.values()
    return score.ndcg


def chosen_summary(
    found: Sequence[Chosen], groups: dict[str, Sequence[str]], *, flips: int, confidence: float, seed: int
) -> dict[str, Any]:
    """Group of tasks -> number of pairs -> what the choice gains over the base, and how often each was chosen."""
    summary: dict[str, Any] = {}
    for group, names in groups.items():
        summary[group] = {}
        for count in PAIRS:
            rows = [row for row in found if row.pairs == count and row.task in set(names)]
            gains = np.array([row.gain for row in rows])
            delta = compare_means(np.zeros(len(rows)), gains, flips=flips, confidence=confidence, seed=seed)
            summary[group][str(count)] = {
                "tasks": len(rows),
                "gain": delta,
                "kept_bar": bool(gains.mean() >= -TOLERATED),
                "worse": int((gains < -TOLERATED).sum()),
                "best_gain": round(float(np.mean([row.best_gain for row in rows])), 4),
                "chosen": dict(Counter(row.name for row in rows).most_common()),
            }
    return summary
