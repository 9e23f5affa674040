"""What `generate` would choose, over many held-out tasks: does the check on a user's own few pairs keep harm away?

For each task some pairs are drawn as a user might have them, the selection of `generate` (`evaluation.own_check` over
the candidates) picks one, and that is measured on the task's test queries.

Shapes: P pairs, X documents, D vector size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from acclimate.data.relevance import Keys, RelevanceTask
from acclimate.evaluation.leaving_out import ranker
from acclimate.evaluation.own_check import BASE, Ranker, own_check
from acclimate.evaluation.significance import compare_means
from acclimate.evaluation.task_scores import TaskScore
from acclimate.models.hypernetwork.candidates import MULTI_TASK, Candidates
from acclimate.models.hypernetwork.condition import ConditionVectors
from acclimate.models.hypernetwork.layers import QUERY_VECTOR, Weights, mapped, of_task
from acclimate.models.hypernetwork.saving import TrainedNetwork
from acclimate.progress import progress
from acclimate.retrieval.top_k import Vectors
from acclimate.training.held_out_tasks import HeldOutTasks, evenly_drawn
from acclimate.training.kept_scores import KeptScores

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


def chosen_by_pairs(world: HeldOutTasks, trained: TrainedNetwork, name: str, kept: KeptScores) -> list[Chosen]:
    """Choose for every task, from 8, 16 and 32 of its pairs and a description.

    Args:
        world: the tasks, with the vectors of all their training texts.
        trained: a hypernetwork.
        name: of the hypernetwork.
        kept: keeps the choices of each task.
    """
    candidates, found = Candidates(trained), []
    tasks = world.library.train.tasks
    with progress("choose by pairs", len(tasks), "tasks") as advance:
        for number, task in enumerate(tasks):
            label = f"{name}, chosen for {task.name}"
            found += kept.rows(label, Chosen, partial(_choices, world, candidates, number))
            advance(1)
    return found


def _choices(world: HeldOutTasks, candidates: Candidates, number: int) -> list[Chosen]:
    """What is chosen for one task from each number of pairs."""
    task, one, found = world.library.train.tasks[number], world.only([number]), []
    base = _ndcg(one.score([None]))
    gains = {BASE: 0.0}
    for count in PAIRS:
        user = _user(world, number, task, count)
        rankers = {name: _ranker(world, candidates, name, user) for name in (BASE, *candidates.names)}
        check = own_check(rankers, user.pairs, len(user.documents) - 1, world.seed)
        for name in candidates.names:
            if name != MULTI_TASK or name not in gains:  # no pair has a part in that one
                weights = candidates.weights(name, user.vectors)
                assert weights is not None  # there are pairs
                adapter = of_task(weights, 0)
                gains[name] = _ndcg(one.score([adapter], candidates.trained.sides == "both")) - base
        chosen = check["best"]
        found.append(Chosen(task.name, count, chosen, gains[chosen], max(gains.values())))
    return found


@dataclass(frozen=True, eq=False)
class _User:
    """A user of a task: a condition with pairs, and the documents among which theirs are looked for."""

    vectors: ConditionVectors
    pairs: list[tuple[str, str]]
    """As texts."""
    queries: Keys
    """Numbers of their queries [P] among the training's."""
    documents: Keys
    """Numbers of the pairs' documents, then of others [X]."""
    document_XD: Vectors
    """The base's vectors of them."""


def _user(world: HeldOutTasks, number: int, task: RelevanceTask, count: int) -> _User:
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
        description_D=world.tested.descriptions[number][0],
        query_PD=shown.query_ND[queries],
        document_PD=shown.document_MD[documents],
    )
    ranked = np.array([*documents.tolist(), *others])
    return _User(vectors, pairs, queries, ranked, shown.document_MD[ranked])


def _ranker(world: HeldOutTasks, candidates: Candidates, name: str, user: _User) -> Ranker:
    """Rank by a candidate that is made without the pairs that it ranks for."""
    query_PD = user.vectors.query_PD
    assert query_PD is not None  # drawn with pairs
    if name == BASE:
        return lambda number: (query_PD[number], user.document_XD)

    def encoded(weights: Weights | None, numbers: tuple[int, ...]) -> tuple[Vectors, Vectors]:
        places = list(numbers)
        if weights is None:
            return query_PD[places], user.document_XD
        if QUERY_VECTOR in weights:
            return mapped(torch.from_numpy(query_PD[places])[None], weights)[0].numpy(), user.document_XD
        query_LD = world.encoded(weights, user.queries[places], part="train")
        if candidates.trained.sides == "query":
            return query_LD, user.document_XD
        return query_LD, world.encoded(weights, user.documents, "document", "train")

    return ranker(candidates, name, user.vectors, user.pairs, encoded)


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
