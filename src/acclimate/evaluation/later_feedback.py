"""Two rankings by later feedback: the interval counts which queries came, and how well the places are known."""

from __future__ import annotations

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

    The places' severity is an estimate: the interval reaches from the lowest low end to the highest high end of those
    at both ends of the severity's own interval, of the same confidence.

    Args:
        said: by searchers, of these queries.
        before: the ranking in use, `depth_of(said)` documents deep.
        candidate: likewise.
        examined: by which clicks are weighed.
        config: the confidence, and how many sign flips.
        seed: fixes the flips.
    """
    found = [_compared(said, before, candidate, one, config, seed) for one in _possible(examined, config.confidence)]
    middle = found[0]
    ends = [one["delta"] for one in found]
    one_sided = len({delta["value"] > 0 for delta in ends}) == 1
    doubt = {
        "low": min(delta["low"] for delta in ends),
        "high": max(delta["high"] for delta in ends),
        "p": max(delta["p"] for delta in ends) if one_sided else 1.0,
    }
    return {**middle, "delta": middle["delta"] | doubt}


def _possible(examined: Examination | None, confidence: float) -> list[Examination | None]:
    """The examination as it is estimated, and at both ends of its interval."""
    if examined is None:
        return [None]
    errors = float(norm.isf((1 - confidence) / 2))
    return [examined, examined.shifted(-errors), examined.shifted(errors)]


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
        limit=MOST_WEIGHT * max(len(one.judged) + len(one.clicked) for one in said),
    )
    return {
        "measure": MEASURE,
        "queries": len(found),
        "before": float(before_N.mean()),
        "candidate": float(candidate_N.mean()),
        "delta": delta,
    }
