"""Whether a candidate takes the place of the adapter in use: not worse where it must not be, better on later feedback.

Shapes: none; everything here is a few numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from acclimate.evaluation.significance import Delta

MOST_TIMES = 20
"""A gate so many times as large is nothing to advise."""


class Measured(TypedDict):
    """Two models on the same queries (or labelled pairs)."""

    measure: str
    queries: int
    before: float
    """The adapter in use."""
    candidate: float
    delta: Delta
    """candidate - before, paired."""
    margin: NotRequired[float]
    """How much may be lost, to the low end of the interval; absent where better is what counts."""


class GuardMeasured(Measured):
    """The same on data from outside the domain."""

    name: str
    base: float
    forgotten: float
    """The loss of the candidate against the base, as a share; negative where it is better."""


def objections(gate: Measured, guards: Sequence[GuardMeasured], later: Measured, *, guard_bound: float) -> list[str]:
    """Say why a candidate is not promoted; empty where it is.

    Args:
        gate: on dev queries that the candidate was neither trained on nor chosen by, with their margin.
        guards: on each guard, with its margin.
        later: on later feedback.
        guard_bound: the largest share that may be lost on a guard since the base.
    """
    found = []
    if not _holds(gate):
        found.append(f"it may be worse on the gate ({_shown(gate)})")
    for guard in guards:
        if not _holds(guard):
            found.append(f"it may be worse on the guard {guard['name']} ({_shown(guard)})")
        if guard["forgotten"] > guard_bound:
            found.append(f"it has lost {guard['forgotten']:.1%} of the base's score on the guard {guard['name']}")
    if later["delta"]["low"] <= 0:
        found.append(f"it is not shown to be better on later feedback ({_shown(later)})")
    return found


def _holds(measured: Measured) -> bool:
    return measured["delta"]["low"] >= -measured.get("margin", 0.0)


def _shown(measured: Measured) -> str:
    delta: Mapping[str, float] = measured["delta"]
    interval = f"[{delta['low']:+.4f}, {delta['high']:+.4f}]"
    shown = f"{measured['measure']} {delta['value']:+.4f} {interval}"
    if "margin" in measured:
        shown += f", margin {measured['margin']:.4f}"
    enough = _enough(measured)
    return f"{shown}, {measured['queries']:,} queries" + (f"; about {enough:,} would tell" if enough else "")


def _enough(measured: Measured) -> int | None:
    """How many queries would show that no more than the margin is lost, if the difference stays as it is; None where
    it is shown, or where it would take none that anybody has."""
    delta, margin = measured["delta"], measured.get("margin")
    if margin is None or delta["value"] <= -margin or _holds(measured):
        return None
    times = ((delta["value"] - delta["low"]) / (delta["value"] + margin)) ** 2
    return int(float(f"{measured['queries'] * times:.2g}")) if times <= MOST_TIMES else None
