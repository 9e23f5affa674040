"""Quality against seconds: what is generated at once, and what a training on some labelled pairs brings instead.

From nothing and from what was generated an adapter is trained on 16, 64 and 120 pairs for more and more steps. A pair
is a query with one document: other pairs' documents are its negatives, also where they would be relevant, as for a user
who knows no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from acclimate.data.relevance import ABSENT, RelevanceTask, TaskLibrary
from acclimate.data.task_library import GROUPS, KNOWN_ATTRIBUTES
from acclimate.evaluation.arms import POOLED
from acclimate.models.hypernetwork.layers import Layer, new_adapter
from acclimate.progress import progress
from acclimate.training.held_out_tasks import HeldOutTasks, evenly_drawn
from acclimate.training.network_training import Adapted
from acclimate.training.own_adapters import OwnAdapters

PAIRS = (16, 64, 120)
STEPS = (10, 100, 300)
MOST_TASKS = 4
"""Tasks of a group."""
SCRATCH, GENERATED = "from scratch", "from the generated one"


@dataclass(frozen=True, slots=True)
class Point:
    """One training of one task."""

    task: str
    group: str
    start: str
    pairs: int
    steps: int
    seconds: float
    ndcg: float


def quality_curve(world: HeldOutTasks, own: OwnAdapters, generated: Sequence[Adapted], label: str) -> list[Point]:
    """Train on some tasks of each group; steps 0 is the start itself.

    Args:
        world: the held-out tasks, with vectors of all their training texts.
        own: what is trained with.
        generated: what was generated for each of the tasks.
        label: the folder within that of `own`.
    """
    facts, found = world.library.facts, []
    chosen = [
        number
        for group in GROUPS[1:]
        for number in evenly_drawn([n for n, one in enumerate(facts) if one.group == group], MOST_TASKS)
    ]
    with progress("quality against seconds", 2 * len(chosen) * len(PAIRS) * len(STEPS), "trainings") as advance:
        for number in chosen:
            one = world.only([number])
            name, group = facts[number].name, facts[number].group
            starts = {SCRATCH: _nothing(generated[number], own.seed), GENERATED: generated[number]}
            for start, modules in starts.items():
                ndcg = one.score([modules])[name].ndcg
                found += [Point(name, group, start, pairs, 0, 0.0, ndcg) for pairs in PAIRS]
                for pairs in PAIRS:
                    library = few_pairs(one.library.train, pairs, own.seed)
                    for steps in STEPS:
                        place = f"{label}/{number}/{start}/{pairs}/{steps}"
                        described = one.shown.descriptions[0]
                        trained, seconds = own.one(library, one.shown, described, place, modules, steps)
                        found.append(Point(name, group, start, pairs, steps, seconds, one.score([trained])[name].ndcg))
                        advance(1)
    return found


def few_pairs(library: TaskLibrary, pairs: int, seed: int) -> TaskLibrary:
    """The only task of a library as a user with so many pairs knows it: nothing else is relevant."""
    (task,) = library.tasks
    generator = np.random.default_rng([seed, pairs])
    queries = generator.permutation(task.usable)[:pairs]
    documents = task.draw_relevant(queries, generator)
    query_N, document_M = np.full(len(task.query_N), ABSENT), np.full(len(task.document_M), ABSENT)
    query_N[queries], document_M[documents] = documents, documents
    known = RelevanceTask(task.name, task.descriptions, query_N, document_M, task.family, task.candidates)
    return TaskLibrary(library.queries, library.documents, (known,))


def curve_summary(found: Sequence[Point]) -> dict[str, list[dict[str, Any]]]:
    """Group of tasks -> means over its tasks, for each start, number of pairs and of steps."""
    groups: Mapping[str, list[Point]] = {
        POOLED: [point for point in found if point.group in KNOWN_ATTRIBUTES],
        "domain": [point for point in found if point.group == "domain"],
    }
    summary: dict[str, list[dict[str, Any]]] = {}
    for group, points in groups.items():
        if points:
            keys = dict.fromkeys((point.start, point.pairs, point.steps) for point in points)
            summary[group] = [_mean(*key, points) for key in keys]
    return summary


def _mean(start: str, pairs: int, steps: int, points: Sequence[Point]) -> dict[str, Any]:
    rows = [point for point in points if (point.start, point.pairs, point.steps) == (start, pairs, steps)]
    ndcg, seconds = (float(np.mean([getattr(row, name) for row in rows])) for name in ("ndcg", "seconds"))
    return {
        "start": start,
        "pairs": pairs,
        "steps": steps,
        "tasks": len(rows),
        "ndcg": round(ndcg, 4),
        "seconds": round(seconds, 3),
    }


def _nothing(like: Adapted, seed: int) -> Adapted:
    """An adapter of the same layers and rank that changes nothing yet."""
    layers = [Layer(name, 0, name, A_rI.shape[1], B_Or.shape[0]) for name, (A_rI, B_Or) in like.items()]
    rank = next(iter(like.values()))[0].shape[0]
    return new_adapter(layers, int(rank), torch.Generator().manual_seed(seed))
