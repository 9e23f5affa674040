"""Reranking: a reranker puts the first documents of a ranking in a new order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acclimate import processes
from acclimate.models.reranker import Reranker
from acclimate.types import Run


def rerank(
    reranker: Reranker, run: Run, queries: Mapping[str, str], corpus: Mapping[str, str], depth: int, *, label: str = ""
) -> Run:
    """Rank the first `depth` documents of every query by the reranker's scores; the rest is left out.

    Several processes share the pairs: all have to call this, and all get the whole result.

    Args:
        reranker: scores all pairs of all queries in one go.
        run: query id -> {document id -> score}, best first.
        queries: id -> text.
        corpus: id -> text.
        depth: documents per query.
        label: shown with a progress bar; silent if empty.

    Returns:
        A `Run` of raw logits: score descending, then document id ascending.
    """
    pairs = [(query, document) for query, ranked in run.items() for document in list(ranked)[:depth]]
    mine = pairs[processes.shard(len(pairs))]
    part = reranker.score_pairs(
        [queries[query] for query, _ in mine], [corpus[document] for _, document in mine], label=label
    )
    scores = np.concatenate(processes.gather(part))
    by_query: dict[str, list[tuple[float, str]]] = {query: [] for query in run}
    for (query, document), score in zip(pairs, scores.tolist(), strict=True):
        by_query[query].append((-score, document))
    return {query: {document: -score for score, document in sorted(rows)} for query, rows in by_query.items()}
