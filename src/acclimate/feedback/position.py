"""How much a click owes to its place: neighbours put in random order, and what their clicks say.

In a share of the searches one pair of neighbours, drawn by chance, is put in random order. Both documents stand equally
often at either place, so the ratio of the clicks at the two places is that of being looked at there: the swap
interventions of Joachims, Swaminathan and Schnabel (2017), in the pairwise form of Radlinski and Joachims (2006).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

LEAST_CLICKS = 30
"""Clicks on a pair from which on their ratio is used: below, it says little."""
MOST_WEIGHT = 10.0
"""A click weighs no more than this many clicks on the first place, however rarely its own place is looked at."""


def with_swap(hits: Sequence[T], share: float, draw: random.Random) -> tuple[list[T], int | None]:
    """Put one pair of neighbours in random order, in a share of the calls.

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
    upper = draw.randrange(len(shown) - 1)
    if draw.random() < 0.5:
        shown[upper], shown[upper + 1] = shown[upper + 1], shown[upper]
    return shown, upper + 1


def examination(clicks_by_pair: Mapping[int, tuple[int, int]]) -> list[float]:
    """Estimate how often each place is looked at, as a share of the first.

    Args:
        clicks_by_pair: upper rank (from 1) -> clicks at the two places, where their order was random.

    Returns:
        The share of rank 1 (which is 1), rank 2 and so on, as far as the clicks say; empty where they say nothing. A
        place is never looked at more often than the one above it.
    """
    shares = [1.0]
    while len(shares) in clicks_by_pair:
        upper, lower = clicks_by_pair[len(shares)]
        if upper + lower < LEAST_CLICKS or not upper:
            break
        shares.append(shares[-1] * min(1.0, lower / upper))
    return shares if len(shares) > 1 else []


def click_weight(rank: int | None, shares: Sequence[float]) -> float:
    """Return the weight of a click: the inverse of how often its place is looked at.

    Args:
        rank: of the document, from 1; None where it is not known.
        shares: of `examination`; the last one counts for all places below. Empty: every click weighs 1.
    """
    if rank is None or not shares:
        return 1.0
    return min(MOST_WEIGHT, 1.0 / max(shares[min(rank, len(shares)) - 1], 1.0 / MOST_WEIGHT))
