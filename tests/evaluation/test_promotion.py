"""What keeps a candidate aside: each objection by itself."""

from __future__ import annotations

from typing import Any

import pytest

from acclimate.evaluation.promotion import GuardMeasured, Measured, objections


def measured(low: float, **more: Any) -> Any:
    delta = {"value": low + 0.01, "low": low, "high": low + 0.02, "p": 0.1, "clusters": 10}
    return {"measure": "ndcg@10", "queries": 100, "before": 0.5, "candidate": 0.5, "delta": delta, **more}


def found(gate: float = 0.0, guard: float = 0.0, forgotten: float = 0.0, later: float = 0.001) -> list[str]:
    guarded: GuardMeasured = measured(guard, margin=0.01, name="law", base=0.5, forgotten=forgotten)
    of_gate: Measured = measured(gate, margin=0.01)
    return objections(of_gate, [guarded], measured(later), guard_bound=0.02)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gate": -0.011}, "worse on the gate"),
        ({"guard": -0.011}, "worse on the guard law"),
        ({"forgotten": 0.021}, "2.1% of the base's score on the guard law"),
        ({"later": 0.0}, "not shown to be better on later feedback"),
    ],
)
def test_each_objection_alone_keeps_it_aside(settings: dict[str, float], said: str) -> None:
    (objection,) = found(**settings)
    assert said in objection


def test_without_objection_it_is_promoted_and_all_objections_are_told() -> None:
    assert found() == []
    assert found(gate=-0.01, guard=-0.01, forgotten=0.02) == [], "the margins themselves are accepted"
    assert len(found(gate=-1, guard=-1, forgotten=1, later=-1)) == 4


def test_a_gate_that_is_too_small_says_how_many_queries_would_tell() -> None:
    """±0.01 of 100 queries around -0.001; ±0.009, within the margin, takes (0.01 / 0.009)² as many."""
    (objection,) = found(gate=-0.011)
    assert objection.endswith("100 queries; about 120 would tell)")
    for low in (-0.0199, -0.021):
        (worse,) = found(gate=low)
        assert worse.endswith("100 queries)"), "a million queries, or none that there could be"
