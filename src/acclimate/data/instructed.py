"""Tasks with their description before every query: what a model that reads instructions is trained on, and asked with.

Every task asks texts of its own, so a task has only some of its queries, each with a wording that was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from acclimate.data.relevance import Keys, TaskLibrary


def instructed(query: str, description: str) -> str:
    """Put a description before a query."""
    return f"{description} {query}"


def instructed_library(library: TaskLibrary, asked: Sequence[Keys], seed: int) -> TaskLibrary:
    """Make the library whose queries have their task's description before them.

    Args:
        library: tasks and texts.
        asked: numbers of the queries that each task asks.
        seed: draws a wording for each.
    """
    generator = np.random.default_rng(seed)
    ends = np.cumsum([len(queries) for queries in asked])
    origin_N = np.concatenate(asked)
    texts = [
        instructed(library.queries[query], task.descriptions[int(generator.integers(len(task.descriptions)))])
        for task, queries in zip(library.tasks, asked, strict=True)
        for query in queries.tolist()
    ]
    tasks = tuple(
        replace(task, query_N=task.query_N[origin_N], asking=np.arange(end - len(queries), end))
        for task, queries, end in zip(library.tasks, asked, ends.tolist(), strict=True)
    )
    return TaskLibrary(tuple(texts), library.documents, tasks)
