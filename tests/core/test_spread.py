"""The spread by hand, and its law: a model's scale of scores changes nothing that is given in spreads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.configs import MineConfig
from acclimate.configs.objective import FALSE_NEGATIVE_SPREADS, TEMPERATURE_SPREADS
from acclimate.core.negatives import margin_mask
from acclimate.core.selection import select_negatives
from acclimate.core.spread import sampled, spread


def test_it_is_the_mean_of_the_queries_standard_deviations() -> None:
    # 0, 2, 4 around 2: sqrt((4 + 0 + 4) / 3); 1, 1, 4 around 2: sqrt((1 + 1 + 4) / 3). Their height is no part of it.
    scores = np.array([[0.0, 2.0, 4.0], [1.0, 1.0, 4.0]])
    assert spread(scores) == pytest.approx((math.sqrt(8 / 3) + math.sqrt(2)) / 2)
    assert spread(scores + np.array([[0.0], [100.0]])) == pytest.approx(spread(scores))


def test_what_does_not_count_is_left_out() -> None:
    scores = np.array([[0.0, 2.0, 900.0], [5.0, 5.0, 5.0], [1.0, -np.inf, -np.inf]], np.float32)
    usable = np.array([[True, True, False], [True, True, True], [True, False, False]])
    assert spread(scores, usable) == 1.0  # the second query tells nothing apart, the third has one document
    assert spread(scores[1:], usable[1:]) == spread(np.zeros((0, 5))) == spread(np.zeros((3, 0))) == 0.0


def test_the_sample_is_a_function_of_the_seed() -> None:
    first = sampled(1000, 50, 1)
    assert first.tolist() == sampled(1000, 50, 1).tolist() == sorted(set(first.tolist()))
    assert first.tolist() != sampled(1000, 50, 2).tolist() and len(first) == 50
    assert sampled(3, 50, 1).tolist() == [0, 1, 2]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), narrow=st.sampled_from([0.02, 0.2, 1.0, 7.0]), shift=st.floats(-1, 1))
def test_a_model_s_scale_changes_nothing_that_is_given_in_spreads(seed: int, narrow: float, shift: float) -> None:
    """Scores mapped to narrow * score + shift: the same candidates are mined, the same masked, the same softmax."""
    rng = np.random.default_rng(seed)
    wide = -np.sort(-rng.normal(0.3, 0.1, (6, 30)), axis=1)
    positive = rng.normal(0.5, 0.1, 6)
    usable = rng.random((6, 30)) < 0.8
    mapped = narrow * wide + shift, narrow * positive + shift
    unit, mapped_unit = spread(wide), spread(mapped[0])
    assert mapped_unit == pytest.approx(narrow * unit)

    for config in (MineConfig(), MineConfig(spread_margin=1.0, num_negatives=9)):
        kept = select_negatives(wide, usable, positive, config, spread=unit)
        again = select_negatives(mapped[0], usable, mapped[1], config, spread=mapped_unit)
        assert kept.columns.tolist() == again.columns.tolist() and kept.removed == again.removed
    masks = [
        margin_mask(torch.from_numpy(scores), torch.from_numpy(of), FALSE_NEGATIVE_SPREADS * one).tolist()
        for scores, of, one in ((wide, positive, unit), (*mapped, mapped_unit))
    ]
    assert masks[0] == masks[1]
    softmaxes = [
        torch.softmax(torch.from_numpy(scores) / (TEMPERATURE_SPREADS * one), dim=1)
        for scores, one in ((wide, unit), (mapped[0], mapped_unit))
    ]
    assert torch.allclose(*softmaxes, atol=1e-9)


def test_only_the_margins_that_are_given_apply() -> None:
    assert MineConfig().effective_spread_margin == 0.27
    assert MineConfig(relative_margin=0.05).effective_spread_margin is None
    assert MineConfig(absolute_margin=0.1).effective_spread_margin is None
    assert MineConfig(absolute_margin=0.1, spread_margin=0.5).effective_spread_margin == 0.5
    assert MineConfig(spread_margin=None).effective_spread_margin is None
