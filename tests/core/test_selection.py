"""Mining's choice, by hand and by law."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.configs import MineConfig
from acclimate.core.selection import Selection, fill, select_negatives

# One query: candidates at 0.90, 0.80, ... 0.40; the positive scores 0.80 and is the second candidate.
SCORES = np.array([[0.90, 0.80, 0.70, 0.60, 0.50, 0.40]], np.float32)
USABLE = np.array([[True, False, True, True, True, True]])
POSITIVE = np.array([0.80], np.float32)


def select(**rules: Any) -> Selection:
    return select_negatives(
        SCORES, USABLE, POSITIVE, MineConfig(**{"spread_margin": None, "num_negatives": 2, **rules})
    )


@pytest.mark.parametrize(
    ("rules", "columns", "removed"),
    [
        ({}, [0, 2], {}),
        # Without the positive the positions are 0.90: 0, 0.70: 1, 0.60: 2, ...
        ({"range_min": 1}, [2, 3], {"range_min": 1}),
        ({"range_min": 1, "range_max": 2}, [2, -1], {"range_min": 1}),
        ({"max_score": 0.65}, [3, 4], {"max_score": 2}),
        ({"min_score": 0.75}, [0, -1], {"min_score": 4}),
        # range_min skips the best of what the other filters leave: 0.60.
        ({"max_score": 0.65, "range_min": 1}, [4, 5], {"max_score": 2, "range_min": 1}),
        # 0.80 - 0.15 = 0.65: drops 0.90 and 0.70
        ({"absolute_margin": 0.15}, [3, 4], {"absolute_margin": 2}),
        # 0.80 - 0.80 * 0.05 = 0.76: drops 0.90 only
        ({"relative_margin": 0.05}, [2, 3], {"relative_margin": 1}),
        # A filter counts only what the ones before it left.
        ({"max_score": 0.85, "relative_margin": 0.2}, [3, 4], {"max_score": 1, "relative_margin": 1}),
        ({"num_negatives": 9}, [0, 2, 3, 4, 5, -1, -1, -1, -1], {}),
    ],
)
def test_each_filter_by_hand(rules: dict[str, Any], columns: list[int], removed: dict[str, int]) -> None:
    selection = select(**rules)
    assert selection.columns.tolist() == [columns]
    assert selection.removed == removed


def test_a_negative_positive_score_lowers_the_relative_threshold() -> None:
    # A reranker's logits: positive -1.0, margin 0.5 -> threshold -1.5, not -0.5.
    scores = np.array([[-0.7, -1.4, -1.6]], np.float32)
    config = MineConfig(num_negatives=3, relative_margin=0.5)
    selection = select_negatives(scores, np.ones((1, 3), np.bool_), np.array([-1.0], np.float32), config)
    assert selection.columns.tolist() == [[2, -1, -1]]


def test_priority_decides_who_and_rank_decides_the_order() -> None:
    priority = np.array([[0.9, 0.0, 0.5, 0.8, 0.1, 0.3]])
    config = MineConfig(num_negatives=3, spread_margin=None)
    # Column 1 has the lowest priority but is not usable; then 4 (0.1), 5 (0.3), 2 (0.5).
    assert select_negatives(SCORES, USABLE, POSITIVE, config, priority).columns.tolist() == [[2, 4, 5]]


def slow_choice(scores: list[float], usable: list[bool], positive: float, config: MineConfig) -> list[int]:
    """The same choice, one candidate at a time, in the words of the settings' documentation."""
    chosen, position = [], -1
    for column, (score, fine) in enumerate(zip(scores, usable, strict=True)):
        if not fine:
            continue
        position += 1
        if position >= config.range_max:
            break
        too_low = config.min_score is not None and score < config.min_score
        too_high = config.max_score is not None and score > config.max_score
        near = config.absolute_margin is not None and score > np.float32(positive) - np.float32(config.absolute_margin)
        if not (too_low or too_high or near):
            chosen.append(column)
    return chosen[config.range_min :][: config.num_negatives]


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10_000),
    range_min=st.integers(0, 5),
    width=st.integers(1, 20),
    count=st.integers(1, 6),
    min_score=st.none() | st.floats(0, 0.4),
    max_score=st.none() | st.floats(0.5, 1),
    margin=st.none() | st.floats(0, 0.5),
)
def test_whole_blocks_equal_one_candidate_at_a_time(
    seed: int,
    range_min: int,
    width: int,
    count: int,
    min_score: float | None,
    max_score: float | None,
    margin: float | None,
) -> None:
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.random((5, width)).astype(np.float32), axis=1)
    usable = rng.random((5, width)) < 0.7
    positive = rng.random(5).astype(np.float32)
    config = dataclasses.replace(
        MineConfig(), num_negatives=count, range_min=range_min, range_max=range_min + 8,
        min_score=min_score, max_score=max_score, absolute_margin=margin, spread_margin=None,
    )  # fmt: skip
    selection = select_negatives(scores, usable, positive, config)
    for row, columns in enumerate(selection.columns.tolist()):
        # A Python float compared with a float32 array is rounded to float32 first; the reference must do the same.
        rounded = dataclasses.replace(
            config,
            min_score=None if min_score is None else float(np.float32(min_score)),
            max_score=None if max_score is None else float(np.float32(max_score)),
        )
        expected = slow_choice(scores[row].tolist(), usable[row].tolist(), float(positive[row]), rounded)
        assert [column for column in columns if column >= 0] == expected


# Three queries of three candidates each; positives at 0.5, 0.55 and 0.9, and a margin of 0.1 to stay below.
FILL_SCORES = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.7, 0.6, 0.5]], np.float32)
FILL_POSITIVE = np.array([0.5, 0.55, 0.9], np.float32)


def filled(needed: int, examples: tuple[int, ...] = (1, 1, 0), **rules: Any) -> tuple[list[list[int]], dict[str, int]]:
    config = MineConfig(**{"num_negatives": 2, "spread_margin": None, "absolute_margin": 0.1, **rules})
    usable = np.ones((3, 3), np.bool_)
    usable[1, 2] = False
    selection = select_negatives(FILL_SCORES, usable, FILL_POSITIVE, config)
    columns, by_filter = fill(selection, FILL_SCORES, usable, FILL_POSITIVE, config, np.array(examples), needed)
    return columns.tolist(), by_filter


@pytest.mark.parametrize(
    ("needed", "examples", "rules", "expected", "by_filter"),
    [
        (0, (1, 1, 0), {}, [[-1, -1], [-1, -1], [0, 1]], {}),
        # The two lowest-scoring usable ones; their best is 0.3 above the first positive, 0.35 above the second.
        (1, (1, 1, 0), {}, [[1, 2], [-1, -1], [0, 1]], {"absolute_margin": 1}),
        (1, (0, 1, 0), {}, [[-1, -1], [0, 1], [0, 1]], {"absolute_margin": 1}),
        (9, (1, 1, 0), {}, [[1, 2], [0, 1], [0, 1]], {"absolute_margin": 2}),
        # One query that stands for two examples is enough for two.
        (2, (2, 1, 0), {}, [[1, 2], [-1, -1], [0, 1]], {"absolute_margin": 1}),
        # The margin goes first; what max_score still holds back comes when that is loosened too.
        (9, (1, 1, 0), {"max_score": 0.75}, [[2, -1], [0, 1], [0, 1]], {"absolute_margin": 1, "max_score": 1}),
        # Nothing to loosen: range_max and what is not usable hold.
        (9, (1, 1, 0), {"absolute_margin": None, "range_max": 1}, [[0, -1], [0, -1], [0, -1]], {}),
    ],
)
def test_filling_by_hand(
    needed: int,
    examples: tuple[int, ...],
    rules: dict[str, Any],
    expected: list[list[int]],
    by_filter: dict[str, int],
) -> None:
    assert filled(needed, examples, **rules) == (expected, by_filter)
