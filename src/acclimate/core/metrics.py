"""Rank order, and measures of scores against binary labels. Pure numpy.

Shape suffixes: N pairs or queries, C distinct scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


def rank_documents(scores_N: Floats, ids: Sequence[str]) -> npt.NDArray[np.intp]:
    """Order of documents, best first: score descending, then id ascending (by code point), so that ties never matter.

    Args:
        scores_N: one score per document.
        ids: the documents' ids, N of them.

    Returns:
        Indices [N] into `ids`.
    """
    return np.lexsort((np.asarray(ids, dtype=np.str_), -np.asarray(scores_N)))


def roc_auc(scores_N: Floats, positive_N: Bools) -> float:
    """Probability that a positive scores above a negative; a tie counts one half.

    The Mann-Whitney statistic by mid-ranks (Fawcett 2006, section 8).

    Returns:
        A value in [0, 1]; nan when one of the classes is empty.
    """
    positives = int(positive_N.sum())
    negatives = positive_N.size - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, group_N, count_C = np.unique(scores_N, return_inverse=True, return_counts=True)
    midrank_C = np.cumsum(count_C) - (count_C - 1) / 2
    rank_sum = midrank_C[group_N][positive_N].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def best_f1(scores_N: Floats, positive_N: Bools) -> tuple[float, float]:
    """The best F1 that any threshold reaches, and that threshold: `score >= threshold` means positive.

    Of equally good thresholds the highest is taken. It is chosen on the very pairs that it is measured on, so it is an
    upper bound on F1, not an estimate of it.

    Returns:
        (F1, threshold); (nan, nan) when there is no positive.
    """
    positives = int(positive_N.sum())
    if positives == 0:
        return float("nan"), float("nan")
    order_N = np.argsort(-scores_N, kind="stable")
    sorted_N = np.asarray(scores_N)[order_N]
    hits_N = np.cumsum(positive_N[order_N])
    f1_N = 2 * hits_N / (np.arange(1, sorted_N.size + 1) + positives)
    # A threshold accepts all pairs of one score or none: only the last of equal scores is a possible cut.
    f1_N[np.append(sorted_N[1:] == sorted_N[:-1], False)] = -1.0
    best = int(np.argmax(f1_N))
    return float(f1_N[best]), float(sorted_N[best])


def margin_statistics(positive_N: Floats, negative_N: Floats) -> dict[str, float]:
    """How far positives stand above the hardest negatives.

    Args:
        positive_N: per query, the cosine with its relevant documents.
        negative_N: per query, the highest cosine with a document that is not relevant.

    Returns:
        The means "positive_cosine" and "negative_cosine", and "margin", their difference.
    """
    positive, negative = float(np.mean(positive_N)), float(np.mean(negative_N))
    return {"positive_cosine": positive, "negative_cosine": negative, "margin": positive - negative}


def first_hits_measures(hit_NK: Bools, relevant_N: npt.NDArray[np.integer]) -> tuple[float, float, float]:
    """NDCG@K with gains of 1, recall@5 and MRR@K of rankings whose judgements are complete, the means over queries.

    The same as `evaluation.measures.evaluate_run` gives, for thousands of queries at once, without a dictionary of
    every relevant document.

    Args:
        hit_NK: whether the document at each of the first K places is relevant.
        relevant_N: how many relevant documents each query has, above 0.
    """
    depth = hit_NK.shape[1]
    discount_K = 1 / np.log2(np.arange(depth) + 2)
    ideal_N = np.cumsum(discount_K)[np.minimum(relevant_N, depth) - 1]
    first_N = np.where(hit_NK.any(1), 1 / (hit_NK.argmax(1) + 1), 0.0)
    recall_N = hit_NK[:, :5].sum(1) / relevant_N
    return float(((hit_NK * discount_K).sum(1) / ideal_N).mean()), float(recall_N.mean()), float(first_N.mean())
