"""The one rule: which text may be in which training role."""

from __future__ import annotations

from typing import get_args

import pytest

from acclimate.data.held_out import JUDGED_EXCLUDED, HeldOut, TrainingRole

ROLES: tuple[TrainingRole, ...] = get_args(TrainingRole)


@pytest.fixture
def held() -> HeldOut:
    found = HeldOut()
    found.add_queries(["how to treat rust"])
    found.add_judged(["Spray early."])
    found.add_pairs([("a dog runs", "a dog is running")])
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_held_out_query_is_in_no_role(held: HeldOut, role: TrainingRole) -> None:
    assert held.excludes("How to treat rust ?", role) and held.excludes("HOW TO TREAT RUST", role)
    assert not held.excludes("how to treat rot", role)


@pytest.mark.parametrize("role", ROLES)
def test_what_is_judged_may_be_trained_on_and_mined_but_is_no_given_negative(held: HeldOut, role: TrainingRole) -> None:
    assert held.excludes("spray early", role) == (role not in ("anchor", "positive", "mined")) == JUDGED_EXCLUDED[role]
    assert held.excludes("A dog runs!", role) == JUDGED_EXCLUDED[role]


def test_rows_are_kept_out_by_a_query_or_by_a_whole_pair(held: HeldOut) -> None:
    assert held.excludes_row("how to treat rust", "x") and held.excludes_row("x", "How to treat rust!")
    assert held.excludes_row("A dog is running", "a dog runs.")
    assert not held.excludes_row("a dog runs", "a cat runs")
    assert not held.excludes_row("x", "spray early")


def test_what_several_hold_out_is_joined(held: HeldOut) -> None:
    both = HeldOut()
    both.update(held)
    both.add_queries(["another"])
    assert both.excludes("another", "anchor") and both.excludes_row("a dog runs", "a dog is running")
    assert not held.excludes("another", "anchor")
