"""How much each observation moves a statistic: the derivative by its weight, times the number of observations.

The mean of the values is 0. With the statistic added they are pseudo-values: their mean is the statistic, and it varies
from sample to sample as the statistic does (the infinitesimal jackknife: Jaeckel 1972; Efron 1982, chapter 6). So what
is known of means, clusters included, holds for correlations and AUC.

Shape suffixes: N observations (pairs, or texts), P pairs of texts, G groups of equal values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Values = npt.NDArray[np.float64]


def pearson_influence(x_N: Floats, y_N: Floats) -> tuple[float, Values]:
    """Pearson's correlation and every observation's influence on it; 0 where one side is constant: it orders nothing.

    With both sides standardised, observation i moves the correlation r by x y - r (x^2 + y^2) / 2: Devlin,
    Gnanadesikan and Kettenring 1975.
    """
    if np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return 0.0, np.zeros(x_N.size)
    x_N, y_N = _standardised(x_N), _standardised(y_N)
    correlation = float(np.mean(x_N * y_N))
    return correlation, x_N * y_N - correlation * (x_N**2 + y_N**2) / 2


def spearman_influence(x_N: Floats, y_N: Floats) -> tuple[float, Values]:
    """Spearman's correlation (Pearson's of mid-ranks) and every observation's influence on it.

    An observation moves the correlation by its own ranks, as in `pearson_influence`, and by moving the ranks of all
    observations above it by one (half of that for its equals).
    """
    rank_x, rank_y = _midranks(x_N), _midranks(y_N)
    correlation, influence_N = pearson_influence(rank_x, rank_y)
    if np.ptp(rank_x) == 0 or np.ptp(rank_y) == 0:
        return correlation, influence_N
    x, y = _standardised(rank_x), _standardised(rank_y)
    by_rank_x = (y - correlation * x) / np.std(rank_x)  # the correlation's derivative by each rank, times N
    by_rank_y = (x - correlation * y) / np.std(rank_y)
    return correlation, influence_N + _sum_above(x_N, by_rank_x) + _sum_above(y_N, by_rank_y)


def auc_influence(
    score_P: Floats, same_P: npt.NDArray[np.bool_], text_P2: npt.NDArray[np.intp]
) -> tuple[float, Values]:
    """ROC-AUC over pairs of texts, and every text's influence on it.

    A pair's part in the AUC is the share of the other class that it is ordered rightly with (ties one half): DeLong,
    DeLong and Clarke-Pearson 1988. A text's influence is that of all pairs that it is in, as in Obuchowski 1997.

    Args:
        score_P: score of every pair.
        same_P: the positive class; both classes have a pair.
        text_P2: the two texts of every pair, as numbers 0 to N - 1.
    """
    positive, negative = np.sort(score_P[same_P]), np.sort(score_P[~same_P])
    right_P = np.empty(score_P.size)
    right_P[same_P] = _share_below(score_P[same_P], negative)
    right_P[~same_P] = 1 - _share_below(score_P[~same_P], positive)
    auc = float(right_P[same_P].mean())
    part_P = (right_P - auc) / np.where(same_P, positive.size, negative.size)
    texts = int(text_P2.max()) + 1
    of_text_N = np.bincount(text_P2.ravel(), weights=np.repeat(part_P, 2), minlength=texts)
    return auc, np.asarray(of_text_N * texts, np.float64)


def _standardised(values_N: Floats) -> Values:
    centred = np.asarray(values_N, np.float64) - np.mean(values_N, dtype=np.float64)
    standardised: Values = centred / np.sqrt(np.mean(centred**2))
    return standardised


def _midranks(values_N: Floats) -> Values:
    """Share of the observations below each, plus half of the share of its equals."""
    return _share_below(values_N, np.sort(values_N))


def _share_below(values: Floats, ordered: Floats) -> Values:
    """Share of `ordered` below each value, plus half of the share equal to it."""
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (low + high) / (2 * ordered.size)


def _sum_above(values_N: Floats, weight_N: Values) -> Values:
    """Mean over all observations of their weights, counting those above an observation once, its equals by half."""
    _, group_N = np.unique(values_N, return_inverse=True)
    weight_G = np.bincount(group_N, weights=weight_N)
    above_G = weight_G.sum() - np.cumsum(weight_G) + weight_G / 2
    above: Values = above_G[group_N] / values_N.size
    return above
