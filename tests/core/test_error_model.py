"""How sure it is that a kept result is right, against a slow reference, and over many queries."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.core.error_model import (
    LEAST_COMPARISONS,
    SLOPES,
    THRESHOLDS,
    chance_of_right,
    log_posterior,
    share_computed,
    sign_bits,
)

COMPARED = st.lists(st.tuples(st.floats(-0.2, 1.0), st.booleans()), min_size=1, max_size=12)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def slow(similarity: float, compared: list[tuple[float, bool]]) -> float:
    """The definition, cell by cell: max over curves' values v of v times the posterior of L(similarity) >= v."""
    cells = []
    for threshold in THRESHOLDS:
        for slope in SLOPES:
            weight = 1.0
            for s, same in compared:
                right = sigmoid(slope * (s - threshold))
                weight *= right if same else sigmoid(-slope * (s - threshold))
            cells.append((sigmoid(slope * (similarity - threshold)), weight))
    total = sum(weight for _, weight in cells)
    values = sorted({value for value, _ in cells}, reverse=True)
    best, mass = 0.0, 0.0
    by_value: dict[float, float] = {}
    for value, weight in cells:
        by_value[value] = by_value.get(value, 0.0) + weight / total
    for value in values:
        mass += by_value[value]
        best = max(best, value * mass)
    return best


def chance(similarity: float, compared: list[tuple[float, bool]]) -> float:
    similarities, same = np.array([s for s, _ in compared]), np.array([c for _, c in compared], bool)
    return chance_of_right(similarity, log_posterior(similarities, same))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 1.0), COMPARED)
def test_it_is_the_definition(similarity: float, compared: list[tuple[float, bool]]) -> None:
    assert chance(similarity, compared) == pytest.approx(slow(similarity, compared), abs=1e-9)


@settings(deadline=None)
@given(COMPARED, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_it_is_a_probability_that_rises_with_the_similarity(
    compared: list[tuple[float, bool]], one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= chance(low, compared) <= chance(high, compared) + 1e-12 <= 1.0 + 1e-9


@settings(deadline=None)
@given(COMPARED, st.floats(0.0, 1.0))
def test_it_is_below_the_posteriors_mean(compared: list[tuple[float, bool]], similarity: float) -> None:
    log_TG = log_posterior(np.array([s for s, _ in compared]), np.array([c for _, c in compared], bool))
    weights = np.exp(log_TG - log_TG.max())
    curves = 1 / (1 + np.exp(-SLOPES[None] * (similarity - THRESHOLDS[:, None])))
    assert chance(similarity, compared) <= float((weights * curves).sum() / weights.sum()) + 1e-12


def test_what_was_seen_counts() -> None:
    """Right ones near by make it surer, wrong ones less so; far above all wrong ones it is still sure."""
    right = [(0.85 + 0.001 * place, True) for place in range(60)]
    assert chance(0.95, right[:6]) < chance(0.95, right[:20]) < chance(0.95, right) < 1.0
    assert chance(0.95, right) > 0.97 > 0.7 > chance(0.6, right)
    wrong = [(0.8, False)] * 10
    assert chance(0.8, right + wrong) < 0.2 < 0.9 < chance(0.95, right + wrong)


def test_how_much_is_computed() -> None:
    assert share_computed(0.995, 0.01) == share_computed(0.99, 0.01) == 0.0
    assert share_computed(0.9, 0.01) == pytest.approx(0.9)
    assert share_computed(0.0, 0.01) == pytest.approx(0.99)
    assert share_computed(0.98, 0.01) == pytest.approx(0.5)


@given(st.floats(0.0, 0.9999), st.floats(0.001, 0.5))
def test_no_more_is_wrong_than_is_allowed(right: float, delta: float) -> None:
    computed = share_computed(right, delta)
    assert 0.0 <= computed <= 1.0 and (1 - computed) * (1 - right) <= delta + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_over_many_queries_no_more_than_delta_are_answered_wrongly(seed: int) -> None:
    """Entries with true curves of their own, outside of the grid's points; a query is right as its curve says."""
    draw, delta = random.Random(seed), 0.05
    entries = [(draw.uniform(0.6, 0.9), draw.uniform(10, 80)) for _ in range(20)]
    logs = [np.zeros((len(THRESHOLDS), len(SLOPES))) for _ in entries]
    compared = [0] * len(entries)
    wrong = served = 0
    queries = 4000
    for _ in range(queries):
        place = draw.randrange(len(entries))
        threshold, slope = entries[place]
        similarity = draw.uniform(0.5, 1.0)
        is_right = draw.random() < sigmoid(slope * (similarity - threshold))
        sure = chance_of_right(similarity, logs[place]) if compared[place] >= LEAST_COMPARISONS else 0.0
        if sure and draw.random() >= share_computed(sure, delta):
            served += 1
            wrong += not is_right
        else:
            compared[place] += 1
            logs[place] += log_posterior(np.array([similarity]), np.array([is_right]))
    assert wrong <= delta * queries and served > 0.15 * queries


def test_sign_bits() -> None:
    bits = sign_bits(np.array([[1, -1, 0, 0.5, -2, 3, 1, 1, 1], [-1] * 9], np.float32))
    assert bits.tolist() == [[0b10010111, 0b10000000], [0, 0]] and bits.dtype == np.uint8
