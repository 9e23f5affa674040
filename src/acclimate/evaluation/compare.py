"""Scores of one model on the test split of a dataset, and the comparison of two models.

Shape suffixes: N queries or pairs, M documents, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from acclimate.configs import EvaluateConfig
from acclimate.core.metrics import margin_statistics
from acclimate.data.dataset import Dataset
from acclimate.errors import DataError
from acclimate.evaluation.clusters import pair_clusters, query_clusters
from acclimate.evaluation.measures import (
    RETRIEVAL_MEASURES,
    evaluate_run,
    extreme_cosines,
    pair_measures,
    positive_labels,
)
from acclimate.evaluation.significance import (
    Delta,
    Interval,
    compare_correlations,
    compare_means,
    correlation_interval,
    mean_interval,
)
from acclimate.models.text_encoder import TextEncoder
from acclimate.retrieval.own_documents import own_documents
from acclimate.retrieval.rank import rank_with_vectors
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.types import PAIR_ROLE, Kind, Qrels, Queries, Run

Floats = npt.NDArray[np.floating]
Measures = Mapping[str, float | None]

MAIN_MEASURE: dict[Kind, str] = {"retrieval": "ndcg@10", "pairs": "spearman"}
"""Kind of data -> the measure that the verdict rests on."""
METHOD = "sign flips of clusters; map@100; BM25 chosen outside the test, and tested; no query finds itself"
"""How results come about, as an input of the stages that write them: those of another method are made again."""
MIN_DEPTH = 100
"""Fewest documents ranked per query: recall@100 needs them."""
BIN_WIDTH = 0.025
SHOWN_QUERIES = 10
SHOWN_DOCUMENTS = 3
SHOWN_CHARS = 1000
"""Length of a document's text in the report's examples."""


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model on one test split."""

    measures: Measures
    """Means over the split."""
    positives: Floats
    """Cosines of queries with their relevant documents, or of pairs with a score >= 0.5."""
    negatives: Floats
    """Cosines of queries with their hardest negative, or of the other pairs."""


@dataclass(frozen=True, slots=True)
class RankingScores(ModelScores):
    """One model's ranking of a corpus."""

    run: Run
    per_query: dict[str, dict[str, float]]
    clusters: Sequence[int] | None = None
    """Cluster of every query, in the order of `per_query`; each for itself if not given."""


@dataclass(frozen=True, slots=True)
class PairScores(ModelScores):
    """One model's cosines of labelled pairs."""

    cosines: Floats
    labels: Floats
    clusters: Sequence[int] | None = None
    """Cluster of every pair; each for itself if not given."""


def judged_queries(dataset: Dataset) -> tuple[Queries, Qrels]:
    """The test queries that have a relevant document, and their judgements.

    Raises:
        DataError: there are none.
    """
    qrels = {
        query: grades for query, grades in dataset.qrels.get("test", {}).items() if any(g > 0 for g in grades.values())
    }
    if not qrels:
        raise DataError("the test split holds no query with a relevant document", fix="Prepare data with a test split.")
    return {query: dataset.queries[query] for query in qrels}, qrels


def score_ranking(
    encoder: TextEncoder, dataset: Dataset, top_k: int, *, cache: Path | None, label: str = ""
) -> RankingScores:
    """Rank the whole corpus for the test queries and measure the ranking.

    Args:
        encoder: gives the vectors of both sides.
        dataset: of kind "retrieval".
        top_k: documents per query; at least `MIN_DEPTH` are ranked.
        cache: folder in which the documents' vectors are kept.
        label: whose vectors, for the progress bar.
    """
    queries, qrels = judged_queries(dataset)
    depth, own = max(top_k, MIN_DEPTH), own_documents(queries, dataset.corpus, qrels)
    run, query_ND, document_MD = rank_with_vectors(
        encoder, queries, dataset.corpus, depth, own=own, cache=cache, label=label
    )
    means, per_query = evaluate_run(run, qrels)
    positive_N, negative_N = extreme_cosines(run, qrels, list(queries), query_ND, list(dataset.corpus), document_MD)
    margins = margin_statistics(positive_N, negative_N) if positive_N.size else {}
    clusters = query_clusters({query: qrels[query] for query in per_query}, queries, dataset.corpus)
    return RankingScores(means | margins, positive_N, negative_N, run, per_query, clusters)


def score_pairs(encoder: TextEncoder, dataset: Dataset, *, label: str = "") -> PairScores:
    """Cosines of the test pairs, measured against their labels.

    Raises:
        DataError: the test split has no pairs.
    """
    pairs = dataset.pairs.get("test", [])
    if not pairs:
        raise DataError("the test split holds no labelled pair", fix="Prepare data with a test split.")
    cosine_N = text_cosines(
        encoder, [pair.sentence1 for pair in pairs], [pair.sentence2 for pair in pairs], label=f"{label} pairs"
    )
    positive_N = positive_labels(pairs)
    label_N = np.array([pair.label for pair in pairs])
    measures = pair_measures(cosine_N, pairs)
    clusters = pair_clusters(pairs)
    return PairScores(measures, cosine_N[positive_N], cosine_N[~positive_N], cosine_N, label_N, clusters)


def text_cosines(
    encoder: TextEncoder, first: Sequence[str], second: Sequence[str], *, label: str = ""
) -> npt.NDArray[np.float32]:
    """Cosine of first[n] and second[n] for every n, both in the role in which labelled pairs are trained."""
    vectors = encode_corpus(encoder, [*first, *second], None, label, role=PAIR_ROLE)
    cosine_N: npt.NDArray[np.float32] = np.einsum("nd,nd->n", vectors[: len(first)], vectors[len(first) :])
    return cosine_N


def score(
    encoder: TextEncoder,
    dataset: Dataset,
    config: EvaluateConfig,
    *,
    cache: Path | None = None,
    label: str = "",
) -> RankingScores | PairScores:
    """Measure a model on the test split of either kind of data.

    Args:
        encoder: the model.
        dataset: its test split is used, and its whole corpus.
        config: how deep to rank.
        cache: folder in which the documents' vectors are kept: where only queries are adapted, base and adapted share
            them.
        label: whose vectors, for the progress bar.
    """
    if dataset.kind == "pairs":
        return score_pairs(encoder, dataset, label=label)
    return score_ranking(encoder, dataset, config.top_k, cache=cache, label=label)


def deltas(base: ModelScores, adapted: ModelScores, config: EvaluateConfig, seed: int) -> dict[str, Delta]:
    """Adapted - base with interval and p, for every measure of rankings or both correlations of pairs."""
    match base, adapted:
        case RankingScores(), RankingScores():
            return _ranking_deltas(base, adapted, config, seed)
        case PairScores(), PairScores():
            return _pair_deltas(base, adapted, config, seed)
    raise TypeError("scores of two kinds of data cannot be compared")


def _ranking_deltas(base: RankingScores, adapted: RankingScores, config: EvaluateConfig, seed: int) -> dict[str, Delta]:

    def column(scores: RankingScores, name: str) -> Floats:
        return np.array([scores.per_query[query][name] for query in base.per_query])

    return {
        name: compare_means(
            column(base, name),
            column(adapted, name),
            flips=config.sign_flips,
            confidence=config.confidence,
            seed=seed,
            clusters=base.clusters,
        )
        for name in RETRIEVAL_MEASURES
    }


def _pair_deltas(base: PairScores, adapted: PairScores, config: EvaluateConfig, seed: int) -> dict[str, Delta]:
    return {
        name: compare_correlations(
            base.cosines,
            adapted.cosines,
            base.labels,
            by_rank=by_rank,
            flips=config.sign_flips,
            confidence=config.confidence,
            seed=seed,
            clusters=base.clusters,
        )
        for name, by_rank in (("spearman", True), ("pearson", False))
    }


def intervals(scores: RankingScores | PairScores, config: EvaluateConfig, seed: int) -> dict[str, Interval]:
    """The intervals of one model's measures: of every measure of rankings, or of both correlations of pairs."""
    shared: dict[str, Any] = {"flips": config.sign_flips, "confidence": config.confidence, "seed": seed}
    shared["clusters"] = scores.clusters
    if isinstance(scores, PairScores):
        correlations = (("spearman", True), ("pearson", False))
        return {
            name: correlation_interval(scores.cosines, scores.labels, by_rank=by_rank, **shared)
            for name, by_rank in correlations
        }
    columns = {name: np.array([row[name] for row in scores.per_query.values()]) for name in RETRIEVAL_MEASURES}
    return {name: mean_interval(value_N, **shared) for name, value_N in columns.items()}


def histograms(base: ModelScores, adapted: ModelScores) -> dict[str, Any]:
    """Counts of positive and negative cosines before and after, over common bins `BIN_WIDTH` wide."""
    everything = np.concatenate([base.positives, base.negatives, adapted.positives, adapted.negatives])
    low, high = -1.0, 1.0
    if everything.size:
        low, high = float(everything.min()), float(everything.max())
    low, high = np.floor(low / BIN_WIDTH), np.floor(high / BIN_WIDTH) + 1
    edges = np.arange(low, high + 1) * BIN_WIDTH

    def counts(scores: ModelScores) -> dict[str, list[int]]:
        return {
            "positive": np.histogram(scores.positives, edges)[0].tolist(),
            "negative": np.histogram(scores.negatives, edges)[0].tolist(),
        }

    return {"edges": np.round(edges, 6).tolist(), "base": counts(base), "adapted": counts(adapted)}


def won_and_lost(
    base: RankingScores, adapted: RankingScores, dataset: Dataset
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The test queries whose main measure rose and fell most, with the first documents of both models."""
    name = MAIN_MEASURE["retrieval"]
    change = {query: adapted.per_query[query][name] - before[name] for query, before in base.per_query.items()}
    rising = sorted((query for query in change if change[query] > 0), key=lambda query: (-change[query], query))
    falling = sorted((query for query in change if change[query] < 0), key=lambda query: (change[query], query))

    def row(query: str) -> dict[str, Any]:
        grades = dataset.qrels["test"][query]
        return {
            "query_id": query,
            "query": dataset.queries[query],
            "delta": change[query],
            "base": base.per_query[query][name],
            "adapted": adapted.per_query[query][name],
            "base_top": _top(base.run[query], dataset, grades),
            "adapted_top": _top(adapted.run[query], dataset, grades),
            "base_rank": _rank(base.run[query], grades),
            "adapted_rank": _rank(adapted.run[query], grades),
            "ranked": len(base.run[query]),
        }

    return [row(query) for query in rising[:SHOWN_QUERIES]], [row(query) for query in falling[:SHOWN_QUERIES]]


def _top(ranked: Mapping[str, float], dataset: Dataset, grades: Mapping[str, int]) -> list[dict[str, Any]]:
    """The first documents of a ranking, and the first relevant one, wherever it stands in it."""
    best = _rank(ranked, grades)
    return [
        {
            "rank": rank,
            "id": document,
            "text": _shortened(dataset.corpus[document]),
            "score": score,
            "relevant": grades.get(document, 0) > 0,
        }
        for rank, (document, score) in enumerate(ranked.items(), start=1)
        if rank <= SHOWN_DOCUMENTS or rank == best
    ]


def _rank(ranked: Mapping[str, float], grades: Mapping[str, int]) -> int | None:
    """The place of the first relevant document, from 1; None where none was ranked."""
    places = (rank for rank, document in enumerate(ranked, start=1) if grades.get(document, 0) > 0)
    return next(places, None)


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
