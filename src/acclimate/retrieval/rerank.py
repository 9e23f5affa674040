"""Reranking: a reranker puts the first documents of a ranking in a new order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from acclimate import processes
from acclimate.configs import RerankConfig
from acclimate.models.reranker import Reranker
from acclimate.retrieval.index.records import Hit
from acclimate.runs.resolve import load_reranker
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


def rerank_hits(
    name: str, settings: RerankConfig, query: str, hits: Sequence[Hit], *, device: str = "auto", dtype: str = "auto"
) -> tuple[str, list[Hit]]:
    """Put what an index has found for one query into a reranker's order.

    Args:
        name: a run with a reranker, a folder, or a hub id.
        settings: see `runs.resolve.load_reranker`, and so are device, dtype and the errors.
        query: what was searched for.
        hits: what was found.
        device: see above.
        dtype: see above.

    Returns:
        The reranker's id, and the hits with its raw logits as scores.
    """
    model = load_reranker(name, settings, device=device, dtype=dtype)
    by_id = {hit.id: hit for hit in hits}
    texts = {hit.id: hit.text for hit in hits}
    run = rerank(model, {"query": {hit.id: hit.score for hit in hits}}, {"query": query}, texts, len(hits))
    return model.source.id, [Hit(by_id[found].document, score) for found, score in run["query"].items()]
