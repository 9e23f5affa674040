"""Two rankings by later feedback: the interval counts which queries came, and how well the places are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from acclimate.configs import EvaluateConfig
from acclimate.evaluation.promotion import Measured
from acclimate.evaluation.significance import Delta, compare_means
from acclimate.feedback.opinions import DEPTH, Opinion, gains
from acclimate.feedback.position import MOST_WEIGHT, Examination
from acclimate.types import Run

MEASURE = "dcg of marks"


def depth_of(said: Sequence[Opinion]) -> int:
    """How deep rankings have to be to be compared."""
    return max([DEPTH, *(len(one.shown) for one in said)])


def compare_by_feedback(
    said: Sequence[Opinion],
    before: Run,
    candidate: Run,
    examined: Examination | None,
    config: EvaluateConfig,
    seed: int,
) -> Measured:
    """Compare a candidate with the ranking in use by what was marked (`feedback.opinions.gains`).

    The places' severity is an estimate. Its error and that of the queries are independent, so the interval's halves are
    the roots of the sum of two squares: by the queries, and by how much the difference changes where the severity is at
    the ends of its own interval, of the same confidence.

    Args:
        said: by searchers, of these queries.
        before: the ranking in use, `depth_of(said)` documents deep.
        candidate: likewise.
        examined: by which clicks are weighed.
        config: the confidence, and how many sign flips.
        seed: fixes the flips.
    """
    middle = _compared(said, before, candidate, examined, config, seed)
    if examined is None:
        return middle
    errors = float(norm.isf((1 - config.confidence) / 2))
    ends = [
        _compared(said, before, candidate, examined.shifted(side * errors), config, seed)["delta"]["value"]
        for side in (-1, 1)
    ]
    return {**middle, "delta": _widened(middle["delta"], min(ends), max(ends))}


def _widened(delta: Delta, least: float, most: float) -> Delta:
    """The interval and p of a difference that lies, by another error, between these two."""
    value = delta["value"]
    below, above = value - delta["low"], delta["high"] - value
    low = value - math.hypot(below, max(0.0, value - least))
    high = value + math.hypot(above, max(0.0, most - value))
    by_queries, in_all = (below, value - low) if value > 0 else (above, high - value)
    narrower = by_queries / in_all if in_all else 1.0
    return {**delta, "low": low, "high": high, "p": float(2 * norm.sf(narrower * norm.isf(delta["p"] / 2)))}


def _compared(
    said: Sequence[Opinion],
    before: Run,
    candidate: Run,
    examined: Examination | None,
    config: EvaluateConfig,
    seed: int,
) -> Measured:
    found = gains(said, before, candidate, examined)
    before_N, candidate_N = (np.array([row[side] for row in found.values()]) for side in (0, 1))
    delta: Delta = compare_means(
        before_N,
        candidate_N,
        flips=config.sign_flips,
        confidence=config.confidence,
        seed=seed,
        limit=MOST_WEIGHT * sum(len(one.judged) + len(one.clicked) for one in said),
    )
    return {
        "measure": MEASURE,
        "queries": len(found),
        "before": float(before_N.mean()),
        "candidate": float(candidate_N.mean()),
        "delta": delta,
    }
