"""Chunks and orders, by law."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.batching import chunks_by_tokens, epoch_order, step_seed


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 80))
def test_chunks_cover_all_within_the_budget_longest_first(lengths: list[int], budget: int) -> None:
    chunks = chunks_by_tokens(lengths, budget)
    order = [int(index) for chunk in chunks for index in chunk]
    assert sorted(order) == list(range(len(lengths)))
    assert all(lengths[first] >= lengths[second] for first, second in pairwise(order))
    assert all(len(chunk) and (len(chunk) == 1 or sum(lengths[i] for i in chunk) <= budget) for chunk in chunks)
    for chunk, following in pairwise(chunks):  # greedy: the next text would not have fitted
        assert sum(lengths[i] for i in chunk) + lengths[following[0]] > budget


def test_chunks_by_hand() -> None:
    assert [chunk.tolist() for chunk in chunks_by_tokens([3, 5, 3, 20, 2], 8)] == [[3], [1, 0], [2, 4]]
    assert chunks_by_tokens([], 8) == []


def test_epoch_order_is_a_function_of_seed_and_epoch() -> None:
    first = epoch_order(100, 42, 0)
    assert sorted(first.tolist()) == list(range(100))
    assert np.array_equal(first, epoch_order(100, 42, 0))
    assert not np.array_equal(first, epoch_order(100, 42, 1))
    assert not np.array_equal(first, epoch_order(100, -42, 0))


def test_step_seeds_differ() -> None:
    seeds = {step_seed(seed, step, chunk) for seed in (-1, 0, 1) for step in range(30) for chunk in range(5)}
    assert len(seeds) == 3 * 30 * 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)
