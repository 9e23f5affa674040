"""Retrieve, then rerank: the best documents of a ranking, put in order anew; and how well that goes on dev."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acclimate import processes
from acclimate.engine.fit import Evaluate
from acclimate.engine.measures import evaluate_run
from acclimate.models.reranker import Reranker
from acclimate.types import Qrels, Run


def rerank(
    reranker: Reranker, run: Run, queries: Mapping[str, str], corpus: Mapping[str, str], depth: int, *, label: str = ""
) -> Run:
    """The first `depth` documents of every query by the reranker's scores; what comes after them is left out.

    Several processes share the pairs: all have to call this, and all get the whole.

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
    pairs = [(query, document) for query, found in run.items() for document in list(found)[:depth]]
    mine = pairs[processes.part(len(pairs))]
    part = reranker.score_pairs(
        [queries[query] for query, _ in mine], [corpus[document] for _, document in mine], label=label
    )
    scores = np.concatenate(processes.gather(part))
    found: dict[str, list[tuple[float, str]]] = {query: [] for query in run}
    for (query, document), score in zip(pairs, scores.tolist(), strict=True):
        found[query].append((-score, document))
    return {query: {document: -score for score, document in sorted(rows)} for query, rows in found.items()}


def reranking_scores(
    reranker: Reranker, retrieved: Run, queries: Mapping[str, str], corpus: Mapping[str, str], qrels: Qrels
) -> Evaluate:
    """Ranking measures on dev while a reranker trains.

    Returns:
        step -> "ndcg@10", "mrr@10"; at step 0 those of the retrieval alone, which is what a reranker has to beat.
    """
    depth = max(len(found) for found in retrieved.values())

    def evaluate(step: int) -> dict[str, float]:
        run = retrieved if step == 0 else rerank(reranker, retrieved, queries, corpus, depth, label="dev")
        means, _ = evaluate_run(run, qrels)
        return {name: means[name] for name in ("ndcg@10", "mrr@10")}

    return evaluate


def sample_queries(qrels: Qrels, count: int, seed: int) -> Qrels:
    """At most `count` of the queries that have a relevant document: a function of the seed."""
    judged = sorted(query for query, grades in qrels.items() if any(grade > 0 for grade in grades.values()))
    if len(judged) > count:
        chosen = np.random.default_rng([seed, len(judged)]).choice(len(judged), size=count, replace=False)
        judged = [judged[place] for place in sorted(chosen)]
    return {query: qrels[query] for query in judged}
