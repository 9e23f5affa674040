"""Texts of a source for a library of tasks: queries, documents, which answer which, and which are for the test.

Shapes: N queries, M documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from acclimate.data.records import RawData, folded
from acclimate.data.relevance import ABSENT, Keys
from acclimate.errors import DataError

TEST_SHARE = 0.3
"""Share of the components (queries and documents that answer each other) that is for the test."""
FEWEST = 200
"""Queries and documents together, below which there is nothing to make tasks of."""


@dataclass(frozen=True, eq=False)
class Collection:
    """The texts of one source.

    Texts that answer each other, directly or through others, are one component, and on one side of the split.
    """

    name: str
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    query_answer_N: Keys
    """Component of each query; `ABSENT` for one that nothing answers."""
    document_answer_M: Keys
    query_test_N: np.ndarray
    """Whether a query is for the test."""
    document_test_M: np.ndarray
    query_groups: tuple[str, ...]
    """Where each query comes from, as a column of the source says it; "" where none does."""
    document_groups: tuple[str, ...]


def collect(name: str, raw: RawData, limit: int | None, seed: int) -> Collection:
    """Take a source's texts: queries with an answer first, drawn by components, then further documents.

    Args:
        name: of the source.
        raw: what was read of it.
        limit: at most so many queries, and so many documents; all if None.
        seed: of the draws and of the split.

    Raises:
        DataError: labelled pairs, which say nothing of queries and documents; too few texts.
    """
    if raw.kind != "retrieval":
        raise DataError(f"{name} holds labelled pairs", possible="queries with their documents")
    pairs = list(dict.fromkeys((folded(row.anchor), folded(row.positive)) for row in raw.records if row.grade > 0))
    queries = list(dict.fromkeys(query for query, _ in pairs))
    documents = list(dict.fromkeys(document for _, document in pairs))
    if len(queries) + len(documents) < FEWEST:
        raise DataError(
            f"{name} has {len(queries)} queries and {len(documents)} documents that answer them",
            possible=f"{FEWEST} together or more",
        )
    component_X = _components(queries, documents, pairs)
    generator = np.random.default_rng(seed)
    order = generator.permutation(int(component_X.max()) + 1)
    test = np.zeros(len(order), bool)
    test[order[: round(TEST_SHARE * len(order))]] = True
    rank = np.argsort(generator.permutation(len(order)))
    query_N = _few(component_X[: len(queries)], rank, limit)
    wanted = set(component_X[query_N].tolist())
    document_X = component_X[len(queries) :]
    document_M = _few(document_X, np.where(np.isin(np.arange(len(rank)), list(wanted)), rank - len(rank), rank), limit)
    further = list(dict.fromkeys(folded(text) for text in (*raw.corpus.values(), *raw.unnamed)))
    known = set(documents)
    further = [text for text in further if text not in known and text.strip()]
    room = len(further) if limit is None else max(0, limit - len(document_M))
    query_group, document_group = _groups(raw, "anchor"), _groups(raw, "positive")
    more = [further[place] for place in sorted(generator.permutation(len(further))[:room].tolist())]
    return Collection(
        name=name,
        queries=tuple(queries[place] for place in query_N),
        documents=(*(documents[place] for place in document_M), *more),
        query_answer_N=component_X[query_N],
        document_answer_M=np.concatenate([document_X[document_M], np.full(len(more), ABSENT)]).astype(np.int64),
        query_test_N=test[component_X[query_N]],
        document_test_M=np.concatenate([test[document_X[document_M]], generator.random(len(more)) < TEST_SHARE]),
        query_groups=tuple(query_group.get(queries[place], "") for place in query_N),
        document_groups=(*(document_group.get(documents[place], "") for place in document_M), *("" for _ in more)),
    )


def _groups(raw: RawData, side: Literal["anchor", "positive"]) -> dict[str, str]:
    """Text of one side -> its group, that of its first row with one; empty where the source was read without groups."""
    found: dict[str, str] = {}
    for row in raw.records:
        if row.group is not None:
            found.setdefault(folded(getattr(row, side)), row.group.strip())
    return found


def _components(queries: Sequence[str], documents: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Keys:
    """Component of every query, then of every document."""
    query_at = {text: place for place, text in enumerate(queries)}
    document_at = {text: place + len(queries) for place, text in enumerate(documents)}
    rows = [query_at[query] for query, _ in pairs]
    columns = [document_at[document] for _, document in pairs]
    size = len(queries) + len(documents)
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _few(component_N: Keys, rank: Keys, limit: int | None) -> Keys:
    """Places of at most `limit` texts, those of the components of the lowest rank, in their own order."""
    return np.sort(np.argsort(rank[component_N], kind="stable")[:limit])
