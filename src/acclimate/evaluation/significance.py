"""Whether the difference between two models is more than chance: sign flips of clusters, for means, correlations, AUC.

docs/proof.md says which test this is, why, and what its verdict does not say.

Shape suffixes: N queries or pairs, P pairs of texts, C clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from acclimate.core.influence import auc_influence, pearson_influence, spearman_influence
from acclimate.core.sign_flips import sign_flip_test

Floats = npt.NDArray[np.floating]
Clusters = Sequence[int] | npt.NDArray[np.integer]
"""Cluster of every query or pair, as any number: those of one cluster depend on each other."""
Verdict = Literal["better", "no evidence", "worse"]
Delta = dict[str, float]
"""A difference adapted - base: "value", its interval "low" to "high", "p", and the number of "clusters"."""


class Interval(NamedTuple):
    """From where to where a value may lie."""

    low: float
    high: float


def compare_means(
    base_N: Floats,
    adapted_N: Floats,
    *,
    flips: int,
    confidence: float,
    seed: int,
    clusters: Clusters | None = None,
    folds: int = 1,
    limit: float = 1.0,
) -> Delta:
    """Difference of the means of two models on the same queries, with an interval and a p-value that agree.

    `core.sign_flips`: if the models are equally good, a cluster is as likely to lose what it gains. Exact for few
    changed queries, where a bootstrap's percentiles are too narrow. A function of the seed alone.

    Args:
        base_N: the base model's score per query, between 0 and `limit`.
        adapted_N: the adapted model's score on the same queries in the same order.
        flips: random sign flips, where there are too many clusters to try all.
        confidence: level of the interval, e.g. 0.95.
        seed: fixes the flips.
        clusters: of the queries; each for itself if not given.
        folds: of a cross-validation whose tests these are, together: the interval is wider (`fold_inflation`).
        limit: the largest difference that two scores can have.

    Returns:
        {"value", "low", "high", "p", "clusters"} of adapted - base.
    """
    delta_N = np.asarray(adapted_N, np.float64) - np.asarray(base_N, np.float64)
    return _tested(delta_N, clusters, limit, flips=flips, confidence=confidence, seed=seed, folds=folds)


def compare_correlations(
    base_N: Floats,
    adapted_N: Floats,
    label_N: Floats,
    *,
    by_rank: bool,
    flips: int,
    confidence: float,
    seed: int,
    clusters: Clusters | None = None,
    folds: Clusters | None = None,
) -> Delta:
    """Difference of two models' correlations with the labels of the same pairs; as `compare_means` otherwise.

    What is flipped is a cluster's pseudo-value (`core.influence`), i.e. to first order the two models' standardised
    cosines of its pairs are swapped. Flipping contributions to a score in this way: Hemerik, Goeman and Finos 2020.
    Its level is that of a large sample, not exact; `tests/proof/test_levels.py` measures it.

    Args:
        base_N: the base model's cosine per pair.
        adapted_N: the adapted model's.
        label_N: the labels.
        by_rank: Spearman's correlation; else Pearson's.
        flips: random sign flips.
        confidence: level of the interval.
        seed: fixes the flips.
        clusters: of the pairs; each for itself if not given.
        folds: of the pairs, where each fold has an adapted model of its own: cosines of different models are not
            ranked together, so the correlations are those within each fold, averaged by its number of pairs. The
            interval is wider (`fold_inflation`).
    """
    correlation = spearman_influence if by_rank else pearson_influence
    fold_N = np.zeros(label_N.size, np.intp) if folds is None else np.asarray(folds)
    pseudo_N, numbers = np.empty(label_N.size), np.unique(fold_N)
    for fold in numbers:
        of_fold_N = fold_N == fold
        (base, base_influence), (adapted, adapted_influence) = (
            correlation(x[of_fold_N], label_N[of_fold_N]) for x in (base_N, adapted_N)
        )
        pseudo_N[of_fold_N] = adapted - base + adapted_influence - base_influence
    return _tested(pseudo_N, clusters, 2.0, flips=flips, confidence=confidence, seed=seed, folds=numbers.size)


def compare_aucs(
    base_P: Floats,
    adapted_P: Floats,
    same_P: npt.NDArray[np.bool_],
    text_P2: npt.NDArray[np.intp],
    *,
    flips: int,
    confidence: float,
    seed: int,
) -> Delta:
    """Difference of two models' ROC-AUC over pairs of the same texts; as `compare_correlations` otherwise.

    The clusters are the texts, because pairs that share a text are not independent.

    Args:
        base_P: the base model's cosine per pair.
        adapted_P: the adapted model's.
        same_P: the positive class; both classes have a pair.
        text_P2: the two texts of every pair, as numbers 0 to N - 1.
        flips: random sign flips.
        confidence: level of the interval.
        seed: fixes the flips.
    """
    base, base_influence_N = auc_influence(base_P, same_P, text_P2)
    adapted, adapted_influence_N = auc_influence(adapted_P, same_P, text_P2)
    pseudo_N = adapted - base + adapted_influence_N - base_influence_N
    return _tested(pseudo_N, None, 1.0, flips=flips, confidence=confidence, seed=seed)


def mean_interval(
    value_N: Floats, *, flips: int, confidence: float, seed: int, clusters: Clusters | None = None
) -> Interval:
    """The interval of one model's mean over its queries, by the means of random halves of the clusters.

    The same arithmetic as that of a difference (`core.sign_flips`; Hartigan 1969): without a second model there is
    nothing to be symmetric, so its level is that of a large sample (the half-sample's variance around the mean is that
    of the mean: Efron 1982, chapter 8).

    Args:
        value_N: the score per query, between 0 and 1.
        flips: random halves.
        confidence: level of the interval.
        seed: fixes the halves.
        clusters: of the queries; each for itself if not given.
    """
    tested = _tested(np.asarray(value_N, np.float64), clusters, 1.0, flips=flips, confidence=confidence, seed=seed)
    return Interval(max(0.0, tested["low"]), min(1.0, tested["high"]))


def correlation_interval(
    cosine_N: Floats,
    label_N: Floats,
    *,
    by_rank: bool,
    flips: int,
    confidence: float,
    seed: int,
    clusters: Clusters | None = None,
) -> Interval:
    """The interval of one model's correlation with the labels, by pseudo-values (`core.influence`); as `mean_interval`.

    Args:
        cosine_N: the cosine per pair.
        label_N: the labels.
        by_rank: Spearman's correlation; else Pearson's.
        flips: random halves.
        confidence: level of the interval.
        seed: fixes the halves.
        clusters: of the pairs; each for itself if not given.
    """
    found, influence_N = (spearman_influence if by_rank else pearson_influence)(cosine_N, label_N)
    tested = _tested(found + influence_N, clusters, 1.0, flips=flips, confidence=confidence, seed=seed)
    return Interval(max(-1.0, tested["low"]), min(1.0, tested["high"]))


def verdict(delta: Mapping[str, float]) -> Verdict:
    """ "better" if the whole interval is above 0, "worse" if it is below, else "no evidence"."""
    if delta["low"] > 0:
        return "better"
    return "worse" if delta["high"] < 0 else "no evidence"


def fold_inflation(folds: int) -> float:
    """How many times larger the variance of a mean over all folds may be than that of independent tests.

    What is tested in one fold is trained on in the others, so a pair of queries can tell twice by chance, once in each
    direction: of a training that is linear in its rows and learns from noise alone, the variance is 2 times as large.
    The factor taken is Nadeau and Bengio's (2003) for repeated splits, with K folds: (1/K + 1/(K - 1)) / (1/K).
    """
    return 1.0 if folds == 1 else 1.0 + folds / (folds - 1)


def _tested(
    delta_N: npt.NDArray[np.float64],
    clusters: Clusters | None,
    limit: float,
    *,
    flips: int,
    confidence: float,
    seed: int,
    folds: int = 1,
) -> Delta:
    numbers = np.arange(delta_N.size) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    size_C = np.bincount(numbers).astype(np.float64)
    sum_C = np.asarray(np.bincount(numbers, weights=delta_N), np.float64)
    # Of folds the flips are taken at a higher confidence, by the normal distribution; as many lie beyond it as usual.
    wider = math.sqrt(fold_inflation(folds))
    doubt = 1 - confidence if folds == 1 else float(2 * norm.sf(wider * norm.isf((1 - confidence) / 2)))
    flips = math.ceil((flips + 1) * (1 - confidence) / doubt) if folds > 1 else flips
    low, high, p = sign_flip_test(sum_C, size_C, flips=flips, confidence=1 - doubt, limit=limit, seed=seed)
    p = p if folds == 1 else float(2 * norm.sf(norm.isf(p / 2) / wider))
    return {"value": float(delta_N.mean()), "low": low, "high": high, "p": p, "clusters": size_C.size}
