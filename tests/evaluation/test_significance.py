"""Sign flips: against a plain enumeration, against the t-test, by hand; p, interval and verdict agree by law."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from acclimate.core import sign_flips
from acclimate.evaluation.significance import compare_correlations, compare_means, verdict

SETTINGS: dict[str, Any] = {"flips": 400, "confidence": 0.95, "seed": 7}


def plain(sums: list[float], sizes: list[int], confidence: float) -> tuple[float, float, float]:
    """All sign flips, one by one: the two-sided p at 0, and the smallest and largest mean that is not rejected."""
    signs = list(itertools.product((1, -1), repeat=len(sums)))

    def one_sided(mean: float, side: int) -> float:
        rest = [side * (total - mean * size) for total, size in zip(sums, sizes, strict=True)]
        totals = [sum(sign * left for sign, left in zip(flip, rest, strict=True)) for flip in signs]
        return sum(total >= totals[0] - 1e-9 for total in totals) / len(totals)

    tail = (1 - confidence) / 2
    grid = [n / 200 for n in range(-200, 201)]
    kept = [mean for mean in grid if one_sided(mean, 1) > tail + 1e-12 and one_sided(mean, -1) > tail + 1e-12]
    return min(kept), max(kept), min(1.0, 2 * min(one_sided(0, 1), one_sided(0, -1)))


@pytest.mark.parametrize("clusters", [4, 6, 8])
def test_equals_the_plain_enumeration(clusters: int) -> None:
    generator = np.random.default_rng(clusters)
    number = np.repeat(np.arange(clusters), generator.integers(1, 4, clusters))
    delta = generator.integers(-20, 60, number.size) / 100
    low, high, p = plain(np.bincount(number, delta).tolist(), np.bincount(number).tolist(), 0.9)
    found = compare_means(np.zeros(number.size), delta, flips=10, confidence=0.9, seed=0, clusters=number)
    assert found["value"] == pytest.approx(delta.mean())
    assert (found["p"], found["clusters"]) == (p, clusters)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.0051)


def test_few_changes_by_hand() -> None:
    """4 of 100 queries changed, all for the better: one flip of 16 is as good, and as one-sided as that."""
    adapted = np.zeros(100)
    adapted[:4] = [0.3, 0.2, 0.5, 0.1]
    found = compare_means(np.zeros(100), adapted, **SETTINGS)
    assert (found["value"], found["p"]) == (pytest.approx(0.011), 2 / 16)
    assert found["low"] <= 0 < found["high"] < 0.05
    assert verdict(found) == "no evidence"
    adapted[4:6] = 0.4
    found = compare_means(np.zeros(100), adapted, **SETTINGS)
    assert (found["p"], verdict(found)) == (2 / 64, "better")


def test_as_many_copies_of_a_query_prove_no_more_than_one() -> None:
    generator = np.random.default_rng(3)
    delta = generator.normal(0.2, 1, 30)
    once = compare_means(np.zeros(30), delta, **SETTINGS)
    copies = compare_means(np.zeros(300), np.repeat(delta, 10), **SETTINGS, clusters=np.repeat(np.arange(30), 10))
    assert copies == pytest.approx(once)
    assert compare_means(np.zeros(300), np.repeat(delta, 10), **SETTINGS)["p"] < once["p"]


def test_fewer_than_six_clusters_exclude_nothing() -> None:
    found = compare_means(np.zeros(5), np.full(5, 0.4), **SETTINGS)
    assert (found["low"], found["high"], found["p"]) == (-1.0, 1.0, 2 / 32)


@pytest.mark.parametrize("size", [50, 400, 5_000])
def test_a_large_sample_is_that_of_the_t_test(size: int) -> None:
    delta = np.random.default_rng(size).normal(2 / size**0.5, 1, size)
    found = compare_means(np.zeros(size), delta, flips=20_000, confidence=0.95, seed=0)
    expected = stats.ttest_1samp(delta, 0)
    interval = expected.confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), abs=0.1 / size**0.5)
    assert found["p"] == pytest.approx(expected.pvalue, abs=0.01)


@pytest.mark.parametrize("by_rank", [True, False])
def test_the_interval_of_a_correlation_is_about_the_bootstrap_s(by_rank: bool) -> None:
    generator = np.random.default_rng(1)
    label = generator.integers(0, 4, 300).astype(float)
    base, adapted = np.round(label + generator.normal(0, 3, 300), 1), np.round(label + generator.normal(0, 2, 300), 1)
    correlation = stats.spearmanr if by_rank else stats.pearsonr

    def difference(sample: Any) -> float:
        first, second = (correlation(x[sample], label[sample]).statistic for x in (base, adapted))
        return float(second - first)

    found = compare_correlations(base, adapted, label, by_rank=by_rank, **SETTINGS)
    assert found["value"] == pytest.approx(difference(slice(None)))
    resampled = [difference(generator.integers(0, 300, 300)) for _ in range(600)]
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])), abs=0.02)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    base, adapted = generator.random(11), generator.random(11)
    whole = compare_means(base, adapted, **SETTINGS)
    monkeypatch.setattr(sign_flips, "BLOCK_CELLS", 40)
    assert compare_means(base, adapted, **SETTINGS) == pytest.approx(whole)


def test_the_seed_fixes_everything() -> None:
    generator = np.random.default_rng(2)
    base, adapted = generator.random(50), generator.random(50)
    assert compare_means(base, adapted, **SETTINGS) == compare_means(base, adapted, **SETTINGS)
    assert compare_means(base, adapted, **SETTINGS) != compare_means(base, adapted, **{**SETTINGS, "seed": 8})


def test_p_is_never_0_and_equal_models_have_p_1() -> None:
    base = np.linspace(0, 1, 20)
    sure = compare_means(base, base + 0.5, **SETTINGS)
    assert sure == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5, "p": 2 / 401, "clusters": 20})
    assert verdict(sure) == "better"
    same = compare_means(base, base, **SETTINGS)
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "clusters": 20}
    assert verdict(same) == "no evidence"


def test_swapping_the_models_mirrors_the_result() -> None:
    generator = np.random.default_rng(4)
    base, adapted = generator.random(60), generator.random(60) + 0.2
    there, back = compare_means(base, adapted, **SETTINGS), compare_means(adapted, base, **SETTINGS)
    assert (back["value"], back["low"], back["high"]) == pytest.approx((-there["value"], -there["high"], -there["low"]))
    assert back["p"] == there["p"]
    assert (verdict(there), verdict(back)) == ("better", "worse")


@settings(max_examples=150, deadline=None)
@given(
    delta=st.lists(st.sampled_from([-1.0, -0.63, -0.37, -0.1, 0.0, 0.1, 0.37, 0.63, 1.0]), min_size=1, max_size=60),
    per_cluster=st.integers(1, 3),
    confidence=st.sampled_from([0.8, 0.9, 0.95, 0.99]),
    seed=st.integers(0, 99),
)
def test_the_interval_excludes_0_exactly_where_p_is_below_alpha(
    delta: list[float], per_cluster: int, confidence: float, seed: int
) -> None:
    clusters = np.arange(len(delta)) // per_cluster
    found = compare_means(
        np.zeros(len(delta)), np.array(delta), flips=300, confidence=confidence, seed=seed, clusters=clusters
    )
    assume(abs(found["p"] - (1 - confidence)) > 1e-9)
    assert (verdict(found) != "no evidence") == (found["p"] < 1 - confidence)
    assert found["low"] - 1e-9 <= found["value"] <= found["high"] + 1e-9


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    truth, covered, trials = 0.3, 0, 300
    for trial in range(trials):
        base = generator.normal(0, 1, 80)
        found = compare_means(base, base + generator.normal(truth, 1, 80), flips=300, confidence=0.9, seed=trial)
        covered += found["low"] <= truth <= found["high"]
    # 90 % of 300 is 270 with a standard deviation of 5.2.
    assert 255 <= covered <= 286


def test_without_a_difference_p_is_small_as_rarely_as_it_says() -> None:
    generator = np.random.default_rng(6)
    base = generator.normal(0, 1, (400, 100))
    adapted = base + generator.normal(0, 1, (400, 100))
    rejected = sum(
        compare_means(b, a, flips=300, confidence=0.95, seed=trial)["p"] < 0.05
        for trial, (b, a) in enumerate(zip(base, adapted, strict=True))
    )
    # 5 % of 400 is 20, standard deviation 4.4.
    assert 7 <= rejected <= 36
