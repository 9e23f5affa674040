"""The paired bootstrap: against the plain loop, against scipy's ranks, and its coverage on data of known difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from acclimate.evaluation import significance
from acclimate.evaluation.significance import (
    paired_bootstrap,
    paired_bootstrap_correlation,
    verdict,
    weighted_correlation,
)

SETTINGS = {"resamples": 400, "confidence": 0.95, "seed": 7}


def drawn(size: int, resamples: int, seed: int) -> list[list[int]]:
    """The resamples as lists of drawn positions: the plain form of the counts."""
    return np.random.default_rng(seed).integers(0, size, (resamples, size)).tolist()


def test_equals_the_plain_loop() -> None:
    generator = np.random.default_rng(0)
    base, adapted = generator.random(37), generator.random(37) + 0.05
    means = [np.mean([adapted[n] - base[n] for n in sample]) for sample in drawn(37, 400, 7)]
    found = paired_bootstrap(base, adapted, **SETTINGS)
    assert found["value"] == pytest.approx(np.mean(adapted) - np.mean(base))
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    against = min(sum(mean <= 0 for mean in means), sum(mean >= 0 for mean in means))
    assert found["p"] == pytest.approx(min(1.0, 2 * (against + 1) / 401))


@pytest.mark.parametrize("by_rank", [True, False])
def test_correlation_equals_the_plain_loop(by_rank: bool) -> None:
    generator = np.random.default_rng(1)
    label = generator.integers(0, 4, 30).astype(float)
    base, adapted = np.round(label + generator.normal(0, 3, 30), 1), np.round(label + generator.normal(0, 1, 30), 1)
    correlation = stats.spearmanr if by_rank else stats.pearsonr
    differences = [
        correlation(adapted[sample], label[sample]).statistic - correlation(base[sample], label[sample]).statistic
        for sample in drawn(30, 400, 7)
    ]
    found = paired_bootstrap_correlation(base, adapted, label, by_rank=by_rank, **SETTINGS)
    expected = correlation(adapted, label).statistic - correlation(base, label).statistic
    assert found["value"] == pytest.approx(expected)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(differences, [2.5, 97.5])))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    base, adapted = generator.random(11), generator.random(11)
    whole = paired_bootstrap(base, adapted, **SETTINGS)
    monkeypatch.setattr(significance, "BLOCK_CELLS", 40)
    assert paired_bootstrap(base, adapted, **SETTINGS) == pytest.approx(whole)


def test_the_seed_fixes_everything() -> None:
    generator = np.random.default_rng(2)
    base, adapted = generator.random(50), generator.random(50)
    assert paired_bootstrap(base, adapted, **SETTINGS) == paired_bootstrap(base, adapted, **SETTINGS)
    assert paired_bootstrap(base, adapted, **SETTINGS) != paired_bootstrap(base, adapted, **{**SETTINGS, "seed": 8})


def test_p_is_never_0_and_equal_models_have_p_1() -> None:
    base = np.linspace(0, 1, 20)
    sure = paired_bootstrap(base, base + 0.5, **SETTINGS)
    assert sure == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5, "p": 2 / 401})
    assert verdict(sure) == "better"
    same = paired_bootstrap(base, base, **SETTINGS)
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert verdict(same) == "no evidence"


def test_swapping_the_models_mirrors_the_result() -> None:
    generator = np.random.default_rng(4)
    base, adapted = generator.random(60), generator.random(60) + 0.2
    there, back = paired_bootstrap(base, adapted, **SETTINGS), paired_bootstrap(adapted, base, **SETTINGS)
    assert (back["value"], back["low"], back["high"]) == pytest.approx((-there["value"], -there["high"], -there["low"]))
    assert back["p"] == there["p"]
    assert (verdict(there), verdict(back)) == ("better", "worse")


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    truth, covered, trials = 0.3, 0, 300
    for trial in range(trials):
        base = generator.normal(0, 1, 80)
        found = paired_bootstrap(base, base + generator.normal(truth, 1, 80), resamples=300, confidence=0.9, seed=trial)
        covered += found["low"] <= truth <= found["high"]
    # 90 % of 300 is 270 with a standard deviation of 5.2; the percentile interval is a little narrow at 80.
    assert 250 <= covered <= 288


def test_without_a_difference_p_is_small_as_rarely_as_it_says() -> None:
    generator = np.random.default_rng(6)
    base = generator.normal(0, 1, (400, 100))
    adapted = base + generator.normal(0, 1, (400, 100))
    rejected = sum(
        paired_bootstrap(b, a, resamples=300, confidence=0.95, seed=trial)["p"] < 0.05
        for trial, (b, a) in enumerate(zip(base, adapted, strict=True))
    )
    # 5 % of 400 is 20, standard deviation 4.4.
    assert 7 <= rejected <= 36


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 3)), min_size=2, max_size=12))
def test_a_weight_is_a_repetition(rows: list[tuple[int, int, int]]) -> None:
    x, y, weight = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    if weight.sum() == 0:
        return
    repeated_x, repeated_y = np.repeat(x, weight.astype(int)), np.repeat(y, weight.astype(int))
    constant = np.ptp(repeated_x) == 0 or np.ptp(repeated_y) == 0
    expected = 0.0 if constant else np.corrcoef(repeated_x, repeated_y)[0, 1]
    found = weighted_correlation(x[:, None], y[:, None], weight[:, None])[0]
    assert found == pytest.approx(expected, abs=1e-7)
