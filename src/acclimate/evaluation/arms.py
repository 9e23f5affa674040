"""The arms of an evaluation of hypernetworks, summed up: means by group of tasks, gains over rivals, the chart.

An arm is one way to serve a task: base, an adapter for all tasks, a generator with one kind of condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from acclimate.data.task_library import GROUPS, KNOWN_ATTRIBUTES, TaskFacts
from acclimate.evaluation.task_scores import TaskScore, difference

Scores = dict[str, dict[str, TaskScore]]
"""Arm -> task -> its measures."""
POOLED = "known attributes"
"""The two groups of tasks whose attributes have all been trained on, together."""
MEASURES = ("ndcg", "recall", "mrr")


def groups_of(facts: Sequence[TaskFacts]) -> dict[str, list[str]]:
    """Group -> names of its tasks; first those of known attributes together."""
    groups: dict[str, list[str]] = {POOLED: [one.name for one in facts if one.group in KNOWN_ATTRIBUTES]}
    for kind in GROUPS[1:]:
        groups[kind] = [one.name for one in facts if one.group == kind]
    return {group: tasks for group, tasks in groups.items() if tasks}


def corpora_of(facts: Sequence[TaskFacts]) -> dict[str, list[str]]:
    """Collection that is not trained on -> names of its tasks."""
    found: dict[str, list[str]] = {}
    for one in facts:
        if one.group == "new-data":
            found.setdefault(one.collection, []).append(one.name)
    return found


def means(scores: Scores, tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Arm -> the mean of each measure over those of the tasks that it was measured on, and their number."""
    found: dict[str, dict[str, Any]] = {}
    for arm, of_task in scores.items():
        rows = [of_task[task] for task in tasks if task in of_task]
        if rows:
            found[arm] = {"tasks": len(rows), **{name: _mean(rows, name) for name in MEASURES}}
    return found


def gains(
    scores: Scores, tasks: Sequence[str], rivals: Mapping[str, Sequence[str]], **how: Any
) -> dict[str, dict[str, Any]]:
    """Arm -> rival -> the difference in NDCG@10 with its interval, over the tasks that both were measured on.

    Args:
        scores: of all arms.
        tasks: of the group.
        rivals: arm -> what it has to be better than.
        how: `flips`, `confidence` and `seed` of `task_scores.difference`.
    """
    found: dict[str, dict[str, Any]] = {}
    for arm, others in rivals.items():
        found[arm] = {}
        for rival in others:
            common = [task for task in tasks if task in scores.get(rival, {}) and task in scores[arm]]
            if common:
                found[arm][rival] = difference(scores[rival], scores[arm], common, **how)
    return found


def compared(scores: Scores, arms: Mapping[str, str]) -> dict[str, Any] | None:
    """Means of several arms over exactly the tasks that all of them were measured on; None where there is none.

    Args:
        scores: of all arms.
        arms: what it is called in the comparison -> arm.
    """
    present = {label: scores[arm] for label, arm in arms.items() if arm in scores}
    if len(present) < 2:
        return None
    common = [task for task in next(iter(present.values())) if all(task in found for found in present.values())]
    if not common:
        return None
    return {
        "tasks": len(common),
        "means": {
            label: {name: _mean([found[task] for task in common], name) for name in MEASURES}
            for label, found in present.items()
        },
    }


def _mean(rows: Sequence[TaskScore], name: str) -> float:
    return round(float(np.mean([getattr(row, name) for row in rows])), 4)
