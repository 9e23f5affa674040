"""Is the difference between two models more than chance? The paired bootstrap, for means and for correlations.

Shape suffixes: N queries or pairs, B resamples of one block, R resamples in all, G groups of equal values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Verdict = Literal["better", "no evidence", "worse"]
Delta = dict[str, float]
"""A difference adapted - base: "value", its interval "low" to "high", and "p"."""

BLOCK_CELLS = 2_000_000
"""Cells of one block of resampled counts: 16 MB each, whatever the number of queries."""


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
        confidence: width of the interval, e.g. 0.95.
        seed: of the resampling.

    Returns:
        {"value", "low", "high", "p"} of adapted - base.
    """
    delta_N = np.asarray(adapted_N, np.float64) - np.asarray(base_N, np.float64)
    means = [count_BN @ delta_N / delta_N.size for count_BN in _resample_counts(delta_N.size, resamples, seed)]
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
        confidence: width of the interval.
        seed: of the resampling.
    """

    def difference(count_BN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        columns = [_midranks(x, count_BN) if by_rank else x[None, :] for x in (base_N, adapted_N, label_N)]
        base, adapted, label = columns
        return weighted_correlation(adapted, label, count_BN) - weighted_correlation(base, label, count_BN)

    observed = difference(np.ones((1, base_N.size)))
    resampled = [difference(count_BN) for count_BN in _resample_counts(base_N.size, resamples, seed)]
    return _delta(float(observed[0]), np.concatenate(resampled), confidence)


def verdict(delta: Mapping[str, float]) -> Verdict:
    """ "better" if the whole interval is above 0, "worse" if it is below, else "no evidence"."""
    if delta["low"] > 0:
        return "better"
    return "worse" if delta["high"] < 0 else "no evidence"


def weighted_correlation(x_BN: Floats, y_BN: Floats, weight_BN: Floats) -> npt.NDArray[np.float64]:
    """Pearson's correlation of each row under its weights, [B]; 0 where one side is constant: it orders nothing."""
    total_B1 = weight_BN.sum(axis=1, keepdims=True)
    x_BN = x_BN - (x_BN * weight_BN).sum(axis=1, keepdims=True) / total_B1
    y_BN = y_BN - (y_BN * weight_BN).sum(axis=1, keepdims=True) / total_B1
    product_B = (weight_BN * x_BN * y_BN).sum(axis=1)
    norm_B = np.sqrt((weight_BN * x_BN**2).sum(axis=1) * (weight_BN * y_BN**2).sum(axis=1))
    correlation_B: npt.NDArray[np.float64] = np.zeros(product_B.shape)
    np.divide(product_B, norm_B, out=correlation_B, where=norm_B > 0)
    return correlation_B


def _midranks(values_N: Floats, count_BN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mid-rank of every value in a sample that holds value n `count[b, n]` times (up to a constant), [B, N]."""
    order_N = np.argsort(values_N, kind="stable")
    _, first_G, group_N = np.unique(values_N[order_N], return_index=True, return_inverse=True)
    count_BG = np.add.reduceat(count_BN[:, order_N], first_G, axis=1)
    midrank_BG = np.cumsum(count_BG, axis=1) - count_BG / 2
    midrank_BN = np.empty_like(count_BN)
    midrank_BN[:, order_N] = midrank_BG[:, group_N]
    return midrank_BN


def _resample_counts(size: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """How often each of `size` items is drawn, in blocks [B, N] that make `resamples` rows together."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn_BN = generator.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        yield np.bincount(drawn_BN.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def _delta(value: float, resampled_R: npt.NDArray[np.float64], confidence: float) -> Delta:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(resampled_R, [tail, 100 - tail])
    against = min(int((resampled_R <= 0).sum()), int((resampled_R >= 0).sum()))
    p = min(1.0, 2 * (against + 1) / (resampled_R.size + 1))
    return {"value": value, "low": float(low), "high": float(high), "p": p}
