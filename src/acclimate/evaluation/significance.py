"""Whether the difference between two models is more than chance: the paired bootstrap, for means, correlations and AUC.

Shape suffixes: N queries, pairs or texts, P pairs of texts, B resamples of one block, R resamples in all, G groups of
equal values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Verdict = Literal["better", "no evidence", "worse"]
Delta = dict[str, float]
"""A difference adapted - base: "value", its interval "low" to "high", and "p"."""

BLOCK_CELLS = 250_000
"""Cells of one block of resampled counts: 2 MB each, which a CPU's cache holds, whatever the number of queries."""


def paired_bootstrap(base_N: Floats, adapted_N: Floats, *, resamples: int, confidence: float, seed: int) -> Delta:
    """Difference of the means of two models on the same queries, with an interval and a p-value.

    The queries are drawn with replacement, each with both of its scores (Efron and Tibshirani 1993, chapters 13 and
    15; for retrieval: Sakai 2006). The interval holds the percentiles of the resampled mean differences. p is
    two-sided, by their sign: with b the smaller of the number of resampled means <= 0 and the number >= 0,
    p = min(1, 2 (b + 1) / (R + 1)). Counting the observed sample as one of the resamples keeps p from being 0
    (Davison and Hinkley 1997, section 4.2). A function of the seed alone.

    Args:
        base_N: the base model's score per query.
        adapted_N: the adapted model's score on the same queries in the same order.
        resamples: R.
        confidence: level of the interval, e.g. 0.95.
        seed: fixes the resampling.

    Returns:
        {"value", "low", "high", "p"} of adapted - base.
    """
    delta_N = np.asarray(adapted_N, np.float64) - np.asarray(base_N, np.float64)
    means = [delta_N @ count_NB / delta_N.size for count_NB in _resample_counts(delta_N.size, resamples, seed)]
    return _delta(float(delta_N.mean()), np.concatenate(means), confidence)


def paired_bootstrap_correlation(
    base_N: Floats, adapted_N: Floats, label_N: Floats, *, by_rank: bool, resamples: int, confidence: float, seed: int
) -> Delta:
    """Difference of two models' correlations with the labels of the same pairs; as `paired_bootstrap` otherwise.

    Every resample ranks its own pairs anew. That needs no sorting: a resample is a count per pair, and the mid-rank of
    a value is the number of drawn values below it plus half the number equal to it.

    Args:
        base_N: the base model's cosine per pair.
        adapted_N: the adapted model's.
        label_N: the labels.
        by_rank: Spearman's correlation; else Pearson's.
        resamples: R.
        confidence: level of the interval.
        seed: fixes the resampling.
    """

    def difference(count_NB: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        columns = [_midranks(x, count_NB) if by_rank else x[:, None] for x in (base_N, adapted_N, label_N)]
        base, adapted, label = columns
        return weighted_correlation(adapted, label, count_NB) - weighted_correlation(base, label, count_NB)

    observed = difference(np.ones((base_N.size, 1)))
    resampled = [difference(count_NB) for count_NB in _resample_counts(base_N.size, resamples, seed)]
    return _delta(float(observed[0]), np.concatenate(resampled), confidence)


def paired_bootstrap_auc(
    base_P: Floats,
    adapted_P: Floats,
    same_P: npt.NDArray[np.bool_],
    text_P2: npt.NDArray[np.intp],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Delta:
    """Difference of two models' ROC-AUC over pairs of the same texts; as `paired_bootstrap` otherwise.

    The texts are drawn, not the pairs, because pairs that share a text are not independent. A pair counts as often as
    the product of its texts' counts; a text drawn twice makes no pair with itself. A resample without pairs of both
    classes counts as no difference.

    Args:
        base_P: the base model's cosine per pair.
        adapted_P: the adapted model's.
        same_P: the positive class.
        text_P2: the two texts of every pair, as numbers 0 to N - 1.
        resamples: R.
        confidence: level of the interval.
        seed: fixes the resampling.
    """
    base_auc, adapted_auc = _auc_by_count(base_P, same_P, text_P2), _auc_by_count(adapted_P, same_P, text_P2)
    size = int(text_P2.max()) + 1
    resampled = [
        adapted_auc(count_N) - base_auc(count_N)
        for count_NB in _resample_counts(size, resamples, seed)
        for count_N in np.ascontiguousarray(count_NB.T)
    ]
    once_N = np.ones(size)
    return _delta(adapted_auc(once_N) - base_auc(once_N), np.array(resampled), confidence)


def _auc_by_count(
    score_P: Floats, same_P: npt.NDArray[np.bool_], text_P2: npt.NDArray[np.intp]
) -> Callable[[npt.NDArray[np.float64]], float]:
    """ROC-AUC as a function of how often each text is drawn; the pairs are sorted once. Ties count one half."""
    order = np.argsort(score_P[~same_P], kind="stable")
    negative_score, (left, right) = score_P[~same_P][order], text_P2[~same_P][order].T
    below = np.searchsorted(negative_score, score_P[same_P], "left")
    not_above = np.searchsorted(negative_score, score_P[same_P], "right")
    positive_left, positive_right = text_P2[same_P].T
    cumulative = np.zeros(negative_score.size + 1)

    def auc(count_N: npt.NDArray[np.float64]) -> float:
        np.cumsum(count_N[left] * count_N[right], out=cumulative[1:])
        positive = count_N[positive_left] * count_N[positive_right]
        pairs = positive.sum() * cumulative[-1]
        return float(positive @ (cumulative[below] + cumulative[not_above]) / (2 * pairs)) if pairs else 0.5

    return auc


def verdict(delta: Mapping[str, float]) -> Verdict:
    """ "better" if the whole interval is above 0, "worse" if it is below, else "no evidence"."""
    if delta["low"] > 0:
        return "better"
    return "worse" if delta["high"] < 0 else "no evidence"


def weighted_correlation(x_NB: Floats, y_NB: Floats, weight_NB: Floats) -> npt.NDArray[np.float64]:
    """Pearson's correlation of each column under its weights, [B]; 0 where one side is constant: it orders nothing."""
    total_B = weight_NB.sum(axis=0)
    x_NB = x_NB - (x_NB * weight_NB).sum(axis=0) / total_B
    y_NB = y_NB - (y_NB * weight_NB).sum(axis=0) / total_B
    weighted_x_NB = x_NB * weight_NB
    product_B = np.einsum("nb,nb->b", weighted_x_NB, y_NB)
    norm_B = np.sqrt(np.einsum("nb,nb->b", weighted_x_NB, x_NB) * np.einsum("nb,nb,nb->b", weight_NB, y_NB, y_NB))
    correlation_B: npt.NDArray[np.float64] = np.zeros(product_B.shape)
    np.divide(product_B, norm_B, out=correlation_B, where=norm_B > 0)
    return correlation_B


def _midranks(values_N: Floats, count_NB: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mid-rank of every value in samples that hold value n `count[n, b]` times (up to a constant), [N, B]."""
    order_N = np.argsort(values_N, kind="stable")
    _, first_G = np.unique(values_N[order_N], return_index=True)
    _, group_N = np.unique(values_N, return_inverse=True)
    count_GB = np.add.reduceat(count_NB[order_N], first_G, axis=0)
    midrank_GB: npt.NDArray[np.float64] = np.cumsum(count_GB, axis=0) - count_GB / 2
    return midrank_GB[group_N]


def _resample_counts(size: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """How often each of `size` items is drawn, in blocks [N, B] that make `resamples` columns together."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // size)
    for start in range(0, resamples, block):
        columns = min(block, resamples - start)
        drawn_BN = generator.integers(0, size, (columns, size)) * columns + np.arange(columns)[:, None]
        yield np.bincount(drawn_BN.ravel(), minlength=columns * size).reshape(size, columns).astype(np.float64)


def _delta(value: float, resampled_R: npt.NDArray[np.float64], confidence: float) -> Delta:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(resampled_R, [tail, 100 - tail])
    against = min(int((resampled_R <= 0).sum()), int((resampled_R >= 0).sum()))
    p = min(1.0, 2 * (against + 1) / (resampled_R.size + 1))
    return {"value": value, "low": float(low), "high": float(high), "p": p}
