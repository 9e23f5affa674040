"""How tasks share the steps of a pass, by hand and by law."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.task_sampling import steps_of_tasks, turns

SIZES = st.lists(st.integers(1, 5000), min_size=1, max_size=6)


def batches_of(sizes: list[int]) -> list[int]:
    return [-(-size // 32) for size in sizes]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [9, 1]),
        # sqrt(900) : sqrt(100) = 3 : 1 of 10 steps: 7.5 and 2.5; 0.5 is left over for both, the first takes it.
        (2.0, [8, 2]),
        (1e9, [5, 5]),
        # 900 ** 10 is all there is, but a task has at least one step.
        (0.1, [9, 1]),
    ],
)
def test_shares_by_hand(temperature: float, expected: list[int]) -> None:
    assert steps_of_tasks([9, 1], [900, 100], temperature) == expected


@given(SIZES, st.floats(0.05, 100))
def test_the_steps_of_a_pass_are_kept_and_every_task_has_one(sizes: list[int], temperature: float) -> None:
    batches = batches_of(sizes)
    steps = steps_of_tasks(batches, sizes, temperature)
    assert sum(steps) == sum(batches)
    assert min(steps) >= 1
    if temperature != 1.0:
        by_size = sorted(zip(sizes, steps, strict=True))
        assert all(smaller[1] <= larger[1] + 1 for smaller, larger in pairwise(by_size))


@given(SIZES, st.integers(-5, 5), st.integers(0, 3))
def test_turns_are_a_function_of_seed_and_pass(sizes: list[int], seed: int, epoch: int) -> None:
    steps = batches_of(sizes)
    order = turns(steps, seed, epoch)
    assert Counter(order.tolist()) == dict(enumerate(steps))
    assert np.array_equal(order, turns(steps, seed, epoch))
