"""Scores of a reranker on dev while it trains."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acclimate.evaluation.dev import Evaluate
from acclimate.evaluation.measures import evaluate_run
from acclimate.models.reranker import Reranker
from acclimate.retrieval.rerank import rerank
from acclimate.types import Qrels, Run


def reranking_scores(
    reranker: Reranker, retrieved: Run, queries: Mapping[str, str], corpus: Mapping[str, str], qrels: Qrels
) -> Evaluate:
    """Ranking measures on dev while a reranker trains.

    Returns:
        step -> "ndcg@10", "mrr@10"; at step 0 those of the retrieval alone, which is what a reranker has to beat.
    """
    depth = max(map(len, retrieved.values()))

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
        judged = [judged[index] for index in sorted(chosen)]
    return {query: qrels[query] for query in judged}
