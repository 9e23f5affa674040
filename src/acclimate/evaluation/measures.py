"""Measures of a ranking, of cosines against labels, and of margins.

Shape suffixes: N queries or pairs, M documents, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import ir_measures
import numpy as np
import numpy.typing as npt
from ir_measures import AP, RR, R, nDCG
from scipy import stats

from acclimate.core.metrics import best_f1, margin_statistics, roc_auc
from acclimate.types import LabelledPair, Qrels, Run

Floats = npt.NDArray[np.floating]

RETRIEVAL_MEASURES = {
    "ndcg@10": nDCG @ 10,
    "recall@5": R @ 5,
    "mrr@10": RR @ 10,
    "map@100": AP @ 100,
    "recall@100": R @ 100,
}
"""Our name -> ir-measures' measure. nDCG has linear gains (trec_eval's). Every measure states its depth, so that none
depends on how deep a run goes: to average precision a relevant document below the hundredth place is not found."""


def evaluate_run(run: Run, qrels: Qrels) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Measure a run against relevance judgements.

    A query without results scores 0. A query without a relevant document cannot be measured and is left out: the
    number of those is `len(qrels)` minus the length of the second result.

    Args:
        run: per query its documents, best first; the order counts, the scores do not.
        qrels: grades; above 0 is relevant.

    Returns:
        The mean of every measure over the queries, and per query id the measures.
    """
    judged = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    # The providers behind ir-measures break ties differently, so they get ranks, not scores.
    ranks = {query: {doc: -float(rank) for rank, doc in enumerate(run[query])} for query in judged if run.get(query)}
    per_query = {query: dict.fromkeys(RETRIEVAL_MEASURES, 0.0) for query in judged}
    names = {measure: name for name, measure in RETRIEVAL_MEASURES.items()}
    for result in ir_measures.iter_calc(list(names), judged, ranks):
        per_query[result.query_id][names[result.measure]] = float(result.value)
    means = {name: _mean([row[name] for row in per_query.values()]) for name in RETRIEVAL_MEASURES}
    return means, per_query


def pair_measures(cosine_N: Floats, pairs: Sequence[LabelledPair]) -> dict[str, float | None]:
    """How well cosines agree with the labels of the same pairs.

    Returns:
        "spearman" and "pearson" with the labels (0 when all cosines or all labels are equal: nothing is ordered);
        "roc_auc", "best_f1" and "best_f1_threshold" with score >= 0.5 as the positive class (None when a class is
        empty).
    """
    label_N = np.array([pair.label for pair in pairs])
    positive_N = positive_labels(pairs)
    varied = np.ptp(cosine_N) > 0 and np.ptp(label_N) > 0
    f1, threshold = best_f1(cosine_N, positive_N) if not positive_N.all() else (math.nan, math.nan)
    measures = {
        "spearman": float(stats.spearmanr(cosine_N, label_N).statistic) if varied else 0.0,
        "pearson": float(stats.pearsonr(cosine_N, label_N).statistic) if varied else 0.0,
        "roc_auc": roc_auc(cosine_N, positive_N),
        "best_f1": f1,
        "best_f1_threshold": threshold,
    }
    return {name: None if math.isnan(value) else value for name, value in measures.items()}


def positive_labels(pairs: Sequence[LabelledPair]) -> npt.NDArray[np.bool_]:
    """Which pairs count as positive: those whose score is at least 0.5."""
    return np.array([pair.score >= 0.5 for pair in pairs], dtype=np.bool_)


def extreme_cosines(
    run: Run, qrels: Qrels, query_ids: Sequence[str], query_ND: Floats, document_ids: Sequence[str], document_MD: Floats
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Per judged query: the mean cosine with its relevant documents, and the cosine with its hardest negative.

    The hardest negative is the first document of the query's run that is not relevant; a query whose run holds
    relevant documents only has none, and is left out of both arrays.

    Args:
        run: the ranking of these very vectors, scores being cosines.
        qrels: grades; above 0 is relevant.
        query_ids: ids of the rows of `query_ND`.
        query_ND: unit rows.
        document_ids: ids of the rows of `document_MD`.
        document_MD: unit rows.
    """
    row_of_query = {identifier: row for row, identifier in enumerate(query_ids)}
    row_of_document = {identifier: row for row, identifier in enumerate(document_ids)}
    positives, negatives = [], []
    for query, grades in qrels.items():
        relevant = {document for document, grade in grades.items() if grade > 0}
        hardest = next((score for document, score in run.get(query, {}).items() if document not in relevant), None)
        if relevant and hardest is not None:
            rows = [row_of_document[document] for document in relevant]
            positives.append(float(np.mean(document_MD[rows] @ query_ND[row_of_query[query]])))
            negatives.append(hardest)
    return np.array(positives), np.array(negatives)


def margin_measures(
    run: Run, qrels: Qrels, query_ids: Sequence[str], query_ND: Floats, document_ids: Sequence[str], document_MD: Floats
) -> dict[str, float]:
    """Mean "positive_cosine", mean hardest "negative_cosine", and "margin"; arguments as `extreme_cosines`."""
    return margin_statistics(*extreme_cosines(run, qrels, query_ids, query_ND, document_ids, document_MD))


def relative_loss(base: Mapping[str, float | None], adapted: Mapping[str, float | None], name: str) -> float:
    """The loss of the adapted model on a measure, as a share of the base's value; negative when it is better."""
    before, after = base[name] or 0.0, adapted[name] or 0.0
    return (before - after) / abs(before) if before else 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
