"""Influence is a derivative: beside the numerical one of the weighted statistic, and beside scikit-learn's AUC."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from acclimate.core.influence import auc_influence, pearson_influence, spearman_influence

Floats = npt.NDArray[np.float64]
STEP = 1e-5


def weighted_pearson(x: Floats, y: Floats, weight: Floats) -> float:
    x, y = x - np.average(x, weights=weight), y - np.average(y, weights=weight)
    return float((weight * x * y).sum() / np.sqrt((weight * x * x).sum() * (weight * y * y).sum()))


def weighted_spearman(x: Floats, y: Floats, weight: Floats) -> float:
    def ranks(values: Floats) -> Floats:
        return np.array([weight[values < value].sum() + weight[values == value].sum() / 2 for value in values])

    return weighted_pearson(ranks(x), ranks(y), weight)


def numerical(statistic: Callable[[Floats], float], size: int) -> Floats:
    """The derivative by every weight, times their number."""
    up, down = (
        np.array([statistic(np.ones(size) + sign * STEP * (np.arange(size) == n)) for n in range(size)])
        for sign in (1, -1)
    )
    return size * (up - down) / (2 * STEP)


@pytest.mark.parametrize("by_rank", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_correlations(by_rank: bool, tied: bool) -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 4, 40).astype(float)
    cosine = label + generator.normal(0, 2, 40)
    cosine = np.round(cosine) if tied else cosine
    value, influence = (spearman_influence if by_rank else pearson_influence)(cosine, label)
    weighted = weighted_spearman if by_rank else weighted_pearson
    assert value == pytest.approx((stats.spearmanr if by_rank else stats.pearsonr)(cosine, label).statistic)
    assert influence == pytest.approx(numerical(lambda weight: weighted(cosine, label, weight), 40), abs=1e-7)
    assert influence.mean() == pytest.approx(0, abs=1e-12)


def test_what_orders_nothing_is_moved_by_nothing() -> None:
    for correlation in (spearman_influence, pearson_influence):
        value, influence = correlation(np.ones(5), np.arange(5.0))
        assert value == 0 and not influence.any()


def test_auc_by_the_texts_of_its_pairs() -> None:
    generator = np.random.default_rng(1)
    pairs = np.stack(np.triu_indices(12, 1), axis=1)
    same = (pairs % 3)[:, 0] == (pairs % 3)[:, 1]
    score = np.round(generator.normal(0, 1, len(same)) + same, 1)
    value, influence = auc_influence(score, same, pairs)
    assert value == pytest.approx(roc_auc_score(same, score))

    def weighted(weight: Floats) -> float:
        return float(roc_auc_score(same, score, sample_weight=weight[pairs].prod(axis=1)))

    assert influence == pytest.approx(numerical(weighted, 12), abs=1e-7)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
