"""Fusion by hand."""

from __future__ import annotations

import pytest

from acclimate.core.fusion import reciprocal_rank_fusion
from acclimate.errors import UsageError


def test_scores_by_hand() -> None:
    scores = reciprocal_rank_fusion([["a", "b"], ["c", "a"]], [1.0, 0.5], constant=1)
    # a: 1/2 + 0.5/3, b: 1/3, c: 0.5/2
    assert scores == pytest.approx({"a": 1 / 2 + 1 / 6, "b": 1 / 3, "c": 1 / 4})
    assert list(scores) == ["a", "b", "c"]


def test_equal_scores_go_by_id_and_a_weight_of_zero_leaves_a_ranking_out() -> None:
    assert list(reciprocal_rank_fusion([["b"], ["a"]], [1, 1])) == ["a", "b"]
    assert list(reciprocal_rank_fusion([["b"], ["a"]], [1, 0])) == ["b"]
    assert reciprocal_rank_fusion([[], []], [1, 1]) == {}


def test_weights_are_checked() -> None:
    with pytest.raises(UsageError, match="2 rankings"):
        reciprocal_rank_fusion([["a"], ["b"]], [1])
    with pytest.raises(UsageError, match="0 or more"):
        reciprocal_rank_fusion([["a"]], [-1])
