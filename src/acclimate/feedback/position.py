"""How much a click owes to its place: neighbours put in random order, and what their clicks say.

In a share of the searches one pair of neighbours, drawn by chance, is put in random order. Both documents stand equally
often at either place, so the ratio of the clicks at the two places is that of being looked at there: the swap
interventions of Joachims, Swaminathan and Schnabel (2017, section 5.3), in the pairwise form of Radlinski and Joachims
(2006). From all pairs together one number is estimated, the severity s of the bias: rank r is looked at r^-s as often
as the first (their section 5.1). One number needs far fewer clicks than one for each place, and has an interval.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

T = TypeVar("T")

LEAST_CLICKS = 100.0
"""Clicks on pairs in random order from which on they are used: below, they say little."""
MOST_OF_ONE_USER = 20
"""Such clicks of one user that count; those of a user with more are scaled down to as many."""
MOST_WEIGHT = 10.0
"""A click weighs no more than this many clicks on the first place, however rarely its own place is looked at."""
MOST_SEVERE = 5.0
"""Beyond it rank 2 is looked at a thirtieth as often as rank 1: no more is estimated."""
ROUNDS = 50


class PairClicks(NamedTuple):
    """Clicks of one user on one pair of places, where their order was random."""

    user: str
    pair: int
    """The upper rank, from 1."""
    upper: int
    lower: int


@dataclass(frozen=True, slots=True)
class Examination:
    """How often the places are looked at: rank r by r^-severity of what rank 1 is."""

    severity: float
    error: float
    """Standard error of the severity."""
    clicks: int
    """On which it rests."""

    def shifted(self, errors: float) -> Examination:
        """The same, where the severity is off by so many standard errors; no less than 0."""
        return Examination(_within(self.severity + errors * self.error), self.error, self.clicks)

    def shares(self, ranks: int) -> list[float]:
        """How often the first places are looked at, as a share of the first."""
        return [rank**-self.severity for rank in range(1, ranks + 1)]

    def weight(self, rank: int) -> float:
        """The weight of a click at a rank (from 1): the inverse of how often it is looked at, `MOST_WEIGHT` at most."""
        return min(MOST_WEIGHT, float(rank**self.severity))


def with_swap(hits: Sequence[T], share: float, draw: random.Random) -> tuple[list[T], int | None]:
    """Put one pair of neighbours in random order, in a share of the calls.

    The pair of ranks k and k + 1 is drawn with a probability in proportion to 1 / k: where more is clicked on, more is
    learned.

    Args:
        hits: best first.
        share: of the calls, 0 to 1.
        draw: random numbers.

    Returns:
        The hits as they are to be shown, and the upper rank (from 1) of the pair; None where nothing was drawn.
    """
    shown = list(hits)
    if len(shown) < 2 or draw.random() >= share:
        return shown, None
    pairs = range(len(shown) - 1)
    upper = draw.choices(pairs, [1 / (pair + 1) for pair in pairs])[0]
    if draw.random() < 0.5:
        shown[upper], shown[upper + 1] = shown[upper + 1], shown[upper]
    return shown, upper + 1


def examination(clicks: Iterable[PairClicks]) -> Examination | None:
    """Estimate how often each place is looked at, from clicks on pairs in random order.

    A click on the pair of ranks k and k + 1 is on the upper one with the odds ((k + 1) / k)^s: a logistic regression
    with one coefficient, by maximum likelihood.

    Returns:
        None where there are too few clicks to say.
    """
    upper, lower = _counted(clicks)
    total = sum(upper.values()) + sum(lower.values())
    if total < LEAST_CLICKS:
        return None
    odds = {pair: math.log((pair + 1) / pair) for pair in {*upper, *lower}}
    severity, information = 1.0, 0.0
    for _ in range(ROUNDS):
        slope = information = 0.0
        for pair, x in odds.items():
            chance = 1.0 / (1.0 + math.exp(-severity * x))
            count = upper[pair] + lower[pair]
            slope += x * (upper[pair] - count * chance)
            information += x * x * count * chance * (1.0 - chance)
        step = slope / information
        severity = _within(severity + step)
        if abs(step) < 1e-9:
            break
    return Examination(severity, information**-0.5, round(total))


def _within(severity: float) -> float:
    return min(MOST_SEVERE, max(0.0, severity))


def _counted(clicks: Iterable[PairClicks]) -> tuple[dict[int, float], dict[int, float]]:
    """Clicks on the upper and the lower place of each pair; no user counts for more than `MOST_OF_ONE_USER`."""
    of_user: dict[str, list[PairClicks]] = defaultdict(list)
    for one in clicks:
        of_user[one.user].append(one)
    upper: dict[int, float] = defaultdict(float)
    lower: dict[int, float] = defaultdict(float)
    for rows in of_user.values():
        scale = min(1.0, MOST_OF_ONE_USER / max(1, sum(row.upper + row.lower for row in rows)))
        for row in rows:
            upper[row.pair] += scale * row.upper
            lower[row.pair] += scale * row.lower
    return upper, lower


def click_weight(rank: int | None, examined: Examination | None) -> float:
    """Return the weight of a click: 1 where its rank or the examination is not known."""
    return 1.0 if rank is None or examined is None else examined.weight(rank)
