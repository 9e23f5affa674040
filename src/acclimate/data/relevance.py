"""Many definitions of relevance over the same texts: what a hypernetwork is trained on.

A definition gives every text a key: a document is relevant to a query when their keys are equal ("about the same
animal", "in the same colour and season"). So all judgements are known, and no negative is a relevant document that
nobody has judged.

Shapes: N queries, M documents, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from acclimate.errors import DataError
from acclimate.types import Qrels

Keys = NDArray[np.int64]
ABSENT = -1
"""Key of a text that takes no part in a task."""


@dataclass(frozen=True, eq=False)
class RelevanceTask:
    """One definition of relevance.

    Raises:
        DataError: it has no description, or no query has a relevant document.
    """

    name: str
    descriptions: tuple[str, ...]
    """The definition in several wordings."""
    query_N: Keys
    """Key of each query; a negative one takes no part."""
    document_M: Keys
    """Key of each document."""
    family: str = ""
    """Whose texts it is about, where a library has those of several corpora."""
    candidates: Keys | None = None
    """Numbers of the documents that a query of it is ranked against; all if None."""
    asking: Keys | None = None
    """Numbers of the queries that are asked; all that have a relevant document if None."""
    order_M: Keys = field(init=False, repr=False)
    """The documents that have a key, sorted by it, so that those of one key are neighbours."""
    sorted_M: Keys = field(init=False, repr=False)
    """Their keys, ascending."""
    usable: Keys = field(init=False, repr=False)
    """The queries that are asked and have a relevant document."""

    def __post_init__(self) -> None:
        present = np.flatnonzero(self.document_M >= 0)
        order_M = present[np.argsort(self.document_M[present], kind="stable")]
        object.__setattr__(self, "order_M", order_M)
        object.__setattr__(self, "sorted_M", self.document_M[order_M])
        answered_N = np.isin(self.query_N, self.document_M) & (self.query_N >= 0)
        if self.asking is not None:
            answered_N &= np.isin(np.arange(len(self.query_N)), self.asking)
        object.__setattr__(self, "usable", np.flatnonzero(answered_N))
        if not self.descriptions:
            raise DataError(f"the task {self.name} has no description", fix="Describe it in one sentence or more.")
        if not len(self.usable):
            raise DataError(f"the task {self.name} has no query with a relevant document", fix="Leave it out.")

    def relevant(self, queries: Sequence[int] | Keys, documents: Sequence[int] | Keys) -> NDArray[np.bool_]:
        """[queries, documents], True where a document is relevant."""
        query_N, document_M = self.query_N[np.asarray(queries)], self.document_M[np.asarray(documents)]
        relevant: NDArray[np.bool_] = (query_N[:, None] == document_M[None]) & (query_N[:, None] >= 0)
        return relevant

    def draw_relevant(self, queries: Keys, generator: np.random.Generator) -> Keys:
        """Draw a relevant document for each query; -1 for one that has none."""
        keys = self.query_N[queries]
        first, end = np.searchsorted(self.sorted_M, keys, "left"), np.searchsorted(self.sorted_M, keys, "right")
        drawn = first + np.floor(generator.random(len(queries)) * (end - first)).astype(np.int64)
        found = (end > first) & (keys >= 0)
        return np.where(found, self.order_M[np.minimum(drawn, len(self.order_M) - 1)], -1)

    def ranked(self) -> Keys:
        """Numbers of the documents that a query is ranked against."""
        return np.arange(len(self.document_M)) if self.candidates is None else self.candidates

    def qrels(self, queries: Sequence[int] | Keys) -> Qrels:
        """Judgements of the given queries over all documents, both named by their numbers."""
        relevant = self.relevant(queries, np.arange(len(self.document_M)))
        return {
            str(query): {str(document): 1 for document in np.flatnonzero(row)}
            for query, row in zip(np.asarray(queries).tolist(), relevant, strict=True)
        }


@dataclass(frozen=True, eq=False, slots=True)
class TaskLibrary:
    """Texts, and definitions of relevance over them.

    Raises:
        DataError: a task speaks of other texts.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    tasks: tuple[RelevanceTask, ...]

    def __post_init__(self) -> None:
        for task in self.tasks:
            if (len(task.query_N), len(task.document_M)) != (len(self.queries), len(self.documents)):
                raise DataError(
                    f"the task {task.name} has keys of {len(task.query_N)} queries and {len(task.document_M)} "
                    f"documents, the library {len(self.queries)} and {len(self.documents)}",
                    fix="Give it a key for every text; -1 for one that takes no part.",
                )

    def only(self, names: Sequence[str]) -> TaskLibrary:
        """Return the library of these tasks alone, in this order."""
        by_name = {task.name: task for task in self.tasks}
        return TaskLibrary(self.queries, self.documents, tuple(by_name[name] for name in names))
