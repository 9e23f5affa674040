"""The honest check of what was generated from a user's pairs: every pair is left out once, and must be found.

For each pair in turn all candidates are made from the other pairs, and rank its document among distractors for its
query. What a candidate has seen of a pair can so never help it with that pair.

The best candidate is chosen only where it is above the base by more than chance: of several that are no better, one is
ahead on a few pairs by luck, and over many tasks choosing that one has cost more than it brought.

Shapes: P pairs, M distractors, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from acclimate.evaluation.significance import Delta, Verdict, compare_means, verdict

BASE = "base"
FEWEST_PAIRS = 2
FEWEST_FOR_EVIDENCE = 4
"""Different queries, below which no result could be more than chance: the best is then chosen, without evidence."""
FLIPS, CONFIDENCE = 4095, 0.8
"""An interval of 80 % above zero is a one-sided test at one in ten."""

Ranker = Callable[[int], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Number of the pair that is left out -> the vector of its query [D], and of all documents [P + M, D], the pairs' own
first."""


class OwnCheck(TypedDict):
    """What the check found."""

    pairs: int
    distractors: int
    ndcg: dict[str, float]
    """Candidate -> mean NDCG@10 of the pair's document."""
    against_base: dict[str, Delta]
    """Candidate -> the difference from the base."""
    best: str
    """What was chosen: the base, unless the candidate with the highest mean is above it by more than chance."""
    verdict: Verdict
    """better: what was chosen is above the base by more than chance."""


def own_check(rankers: Mapping[str, Ranker], pairs: Sequence[tuple[str, str]], distractors: int, seed: int) -> OwnCheck:
    """Leave out each pair once, and measure all candidates.

    Args:
        rankers: candidate -> how it ranks; the base is one.
        pairs: (query, document); documents of a query's other pairs are no distractors for it.
        distractors: M.
        seed: of the test.
    """
    gains = {name: _gains(rank, pairs) for name, rank in rankers.items()}
    base_P = gains[BASE]
    # Pairs of one query are found together or not at all.
    numbers: dict[str, int] = {}
    clusters = [numbers.setdefault(query, len(numbers)) for query, _ in pairs]
    deltas = {
        name: compare_means(base_P, gain_P, flips=FLIPS, confidence=CONFIDENCE, seed=seed, clusters=clusters)
        for name, gain_P in gains.items()
        if name != BASE
    }
    best = max(gains, key=lambda name: (round(float(gains[name].mean()), 6), name == BASE))
    if best != BASE and len(numbers) >= FEWEST_FOR_EVIDENCE and verdict(deltas[best]) != "better":
        best = BASE
    return {
        "pairs": len(pairs),
        "distractors": distractors,
        "ndcg": {name: round(float(gain_P.mean()), 4) for name, gain_P in gains.items()},
        "against_base": deltas,
        "best": best,
        "verdict": "no evidence" if best == BASE else verdict(deltas[best]),
    }


def _gains(rank: Ranker, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    """NDCG@10 of each pair's document: 1 / log2(rank + 1) within the first ten, else 0."""
    gain_P = np.zeros(len(pairs))
    for number, (query, document) in enumerate(pairs):
        query_D, document_XD = rank(number)
        scores_X = document_XD @ query_D
        others = np.array(
            [i for i, (q, d) in enumerate(pairs) if i != number and (q == query or d == document)], np.intp
        )
        own = scores_X[number]
        scores_X[others] = -np.inf
        scores_X[number] = -np.inf
        place = 1 + int((scores_X >= own).sum())  # a tie counts against
        gain_P[number] = 1 / np.log2(place + 1) if place <= 10 else 0.0
    return gain_P
