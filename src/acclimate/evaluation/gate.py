"""The gate of an INT8 export: non-inferior on held-out queries, or not shipped.

Shapes: N queries or pairs, M documents.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from acclimate.configs import EvaluateConfig
from acclimate.data.dataset import Dataset
from acclimate.errors import DataError
from acclimate.evaluation.clusters import query_clusters
from acclimate.evaluation.compare import MAIN_MEASURE, deltas, judged_queries, score_pairs
from acclimate.evaluation.measures import evaluate_run
from acclimate.evaluation.significance import Clusters, Delta, compare_means
from acclimate.models.reranker import Reranker
from acclimate.models.text_encoder import TextEncoder
from acclimate.retrieval.own_documents import own_documents
from acclimate.retrieval.rank import rank_vectors
from acclimate.retrieval.rerank import rerank
from acclimate.retrieval.top_k import Vectors
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.types import Run, Split

DEPTH = 100
"""Documents ranked per query."""


class Gate(TypedDict):
    """What a gate has measured on one split."""

    split: Split
    measure: str
    queries: int
    """Or labelled pairs."""
    float32: float
    int8: float
    delta: Delta
    """int8 - float32, paired, with its interval."""
    bound: float
    """The largest loss that is accepted, absolute."""
    holds: bool
    """Whether the whole interval is above -bound."""
    mixed: NotRequired[dict[str, Delta]]
    """INT8 on one side only ("queries", "documents") - all of it float32: whether an index of one serves the other."""
    interchangeable: bool
    """Whether both of these hold too."""


def gate(
    reference: TextEncoder,
    candidate: TextEncoder,
    data: Dataset,
    split: Split,
    config: EvaluateConfig,
    *,
    loss: float,
    seed: int,
    cache: Path | None = None,
) -> Gate:
    """Measure whether a smaller model is non-inferior to the one that it was made from.

    Args:
        reference: in float32.
        candidate: in INT8.
        data: its whole corpus is ranked.
        split: whose queries or pairs.
        config: how sure, and by how many sign flips.
        loss: the largest relative loss that is accepted.
        seed: of the flips.
        cache: folder of cached vectors.

    Raises:
        DataError: the split has nothing to measure by.
    """
    of_split = dataclasses.replace(
        data, qrels={"test": data.qrels.get(split, {})}, pairs={"test": data.pairs.get(split, [])}
    )
    measure = MAIN_MEASURE[data.kind]
    if data.kind == "pairs":
        whole, small = (score_pairs(encoder, of_split, label="gate") for encoder in (reference, candidate))
        count, value = len(of_split.pairs["test"]), whole.measures[measure] or 0.0
        delta = deltas(whole, small, config, seed)[measure]
        found = _judged(split, measure, count, value, delta, loss)
        return {**found, "interchangeable": found["holds"]}
    queries = list(judged_queries(of_split)[0].values())
    before, after = (
        (
            encode_corpus(encoder, queries, None, "gate queries", role="query"),
            encode_corpus(encoder, list(data.corpus.values()), cache, "gate documents"),
        )
        for encoder in (reference, candidate)
    )
    return gate_of_vectors(of_split, split, before, after, config, loss=loss, seed=seed)


def gate_of_vectors(
    data: Dataset,
    split: Split,
    before: tuple[Vectors, Vectors],
    after: tuple[Vectors, Vectors],
    config: EvaluateConfig,
    *,
    loss: float,
    seed: int,
) -> Gate:
    """Judge the vectors of a smaller model; see `gate`.

    Args:
        data: its test split is that of the queries.
        split: how it is called.
        before: vectors of the judged queries and of the corpus, [N, D] and [M, D], in their order.
        after: those of the smaller model.
        config: see `gate`.
        loss: see `gate`.
        seed: see `gate`.

    Raises:
        DataError: the split has nothing to measure by.
    """
    asked = _Asked(data, config, seed)
    (query_ND, document_MD), (query8_ND, document8_MD) = before, after
    scores = asked.scores(query_ND, document_MD)
    delta = asked.compare(scores, asked.scores(query8_ND, document8_MD))
    mixed = {
        "queries": asked.compare(scores, asked.scores(query8_ND, document_MD)),
        "documents": asked.compare(scores, asked.scores(query_ND, document8_MD)),
    }
    found = _judged(split, MAIN_MEASURE["retrieval"], len(scores), float(scores.mean()), delta, loss)
    both = all(side["low"] >= -found["bound"] for side in mixed.values())
    return {**found, "mixed": mixed, "interchangeable": found["holds"] and both}


def rerank_gate(
    reference: Reranker,
    candidate: Reranker,
    retrieved: Run,
    data: Dataset,
    split: Split,
    config: EvaluateConfig,
    *,
    loss: float,
    seed: int,
) -> Gate:
    """Measure whether a smaller reranker is non-inferior to the one that it was made from.

    Args:
        reference: in float32.
        candidate: in INT8.
        retrieved: of every query the documents that both put in order.
        data: texts and judgements.
        split: whose queries.
        config: how sure, and by how many sign flips.
        loss: the largest relative loss that is accepted.
        seed: of the flips.

    Raises:
        DataError: the split has nothing to measure by.
    """
    qrels = data.qrels.get(split, {})
    scores = []
    for reranker in (reference, candidate):
        run = rerank(reranker, retrieved, data.queries, data.corpus, max(map(len, retrieved.values())), label="gate")
        per_query = evaluate_run(run, {query: qrels[query] for query in retrieved})[1]
        scores.append(np.array([per_query[query][MAIN_MEASURE["retrieval"]] for query in retrieved]))
    clusters = query_clusters({query: qrels[query] for query in retrieved}, data.queries, data.corpus)
    delta = compare_means(*scores, confidence=config.confidence, flips=config.sign_flips, seed=seed, clusters=clusters)
    return _judged(split, MAIN_MEASURE["retrieval"], len(scores[0]), float(scores[0].mean()), delta, loss)


class _Asked:
    """The queries of a split, what is ranked for them, and what they depend on."""

    def __init__(self, data: Dataset, config: EvaluateConfig, seed: int) -> None:
        self.queries, self.qrels = judged_queries(data)
        self.corpus, self.config, self.seed = data.corpus, config, seed
        self.own = own_documents(self.queries, data.corpus, self.qrels)
        self.clusters: Clusters = query_clusters(self.qrels, self.queries, data.corpus)

    def scores(self, query_ND: Vectors, document_MD: Vectors) -> Vectors:
        """NDCG@10 of every query, float64 [N]."""
        ids = list(self.queries)
        run = rank_vectors(ids, query_ND, list(self.corpus), document_MD, DEPTH, own=self.own)
        per_query = evaluate_run(run, self.qrels)[1]
        return np.array([per_query[query][MAIN_MEASURE["retrieval"]] for query in ids])

    def compare(self, before_N: Vectors, after_N: Vectors) -> Delta:
        """After - before, paired by query."""
        how = {"flips": self.config.sign_flips, "seed": self.seed}
        return compare_means(before_N, after_N, confidence=self.config.confidence, clusters=self.clusters, **how)


def _judged(split: Split, measure: str, count: int, value: float, delta: Delta, loss: float) -> Gate:
    if not count:
        raise DataError(f"the {split} split has nothing to measure by", fix="Prepare data with a test and a dev split.")
    bound = loss * abs(value)
    return {
        "split": split,
        "measure": measure,
        "queries": count,
        "float32": value,
        "int8": value + delta["value"],
        "delta": delta,
        "bound": bound,
        "holds": delta["low"] >= -bound,
        "interchangeable": False,
    }
