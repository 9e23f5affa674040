"""A paired test that needs no distribution, and the interval that is its inverse: sign flips of whole clusters.

Shape suffixes: C clusters, R sets of flipped clusters, B sets of one block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EXACT = 12
"""Up to so many clusters that changed, every sign flip is tried: 4,096."""
BLOCK_CELLS = 250_000
"""Cells of one block of sets: 2 MB each, which a CPU's cache holds, whatever the number of clusters."""
DECIMALS = 12
"""Sums are rounded to so many, so that sums that are equal by arithmetic are equal as numbers."""


def sign_flip_test(
    sum_C: Floats, size_C: Floats, *, flips: int, confidence: float, limit: float, seed: int
) -> tuple[float, float, float]:
    """Test whether the mean of all differences is 0, and find the means that such a test does not reject.

    A difference is adapted - base of one query; queries of one cluster depend on each other, clusters do not. If the
    mean is m, the sum of a cluster is as likely above `m * size` as below it by the same amount: flipping the signs of
    what is left of any set of clusters gives a result that was as likely as the observed one (Fisher 1935, section
    21). One-sided p(m) is the share of flips whose total is at least as far from m as the observed one, on that side;
    the flip of nothing, which is the observed result, counts (Phipson and Smyth 2010: so p is never 0 and holds its
    level whatever the number of flips).

    The flip of a set is at least as extreme exactly where the mean of the differences *in that set* is at most m, so
    that p(m) is a distribution function of the means of random sets, and the interval is between two of them: Hartigan
    1969, "typical values". It excludes 0 exactly where the two-sided p is at most 1 - confidence.

    Where at most `EXACT` clusters have a sum other than 0, all flips of these are tried: p at 0 is exact, as flipping
    a cluster without a change changes nothing. Other clusters' flips, on which the interval depends, are drawn.

    Args:
        sum_C: sum of the differences of every cluster.
        size_C: number of differences in every cluster, each above 0.
        flips: how many random flips are tried, where not all are.
        confidence: level of the interval, e.g. 0.95.
        limit: the largest difference possible: the interval reaches to it where there are too few clusters to
            exclude anything (fewer than 6 at 0.95).
        seed: fixes the flips.

    Returns:
        The interval's ends, and the two-sided p: twice the smaller one-sided p, at most 1.
    """
    sum_C = np.round(sum_C, DECIMALS)
    columns = np.stack([sum_C, size_C], axis=1)
    totals = np.concatenate([set_BC @ columns for set_BC in _flipped_sets(sum_C != 0, flips, seed)])
    total_R, size_R = totals[:, 0], totals[:, 1]
    mean_R = np.sort(np.round(total_R[size_R > 0] / size_R[size_R > 0], DECIMALS)) + 0.0  # no -0.0
    count, unflipped = len(totals), int((size_R == 0).sum())
    above, below = (unflipped + int((side * mean_R <= 0).sum()) for side in (1, -1))
    # With `place` or fewer flips at least as extreme, m is rejected.
    place = math.floor(count * (1 - confidence) / 2 + 1e-9) - unflipped
    low, high = (-limit, limit) if place < 0 else (float(mean_R[place]), float(mean_R[-1 - place]))
    return low, high, min(1.0, 2 * min(above, below) / count)


def _flipped_sets(changed_C: npt.NDArray[np.bool_], flips: int, seed: int) -> Iterator[Floats]:
    """The sets of clusters whose signs are flipped, 1 for a member, in blocks [B, C]; the first set is empty."""
    generator = np.random.default_rng(seed)
    clusters = changed_C.size
    exact = changed_C
    if clusters <= EXACT:
        exact = np.ones(clusters, np.bool_)
    elif exact.sum() > EXACT:
        exact = np.zeros(clusters, np.bool_)
    every = 2 ** int(exact.sum())
    repeats = 1 if exact.all() else math.ceil((flips + 1) / every)
    block = max(1, BLOCK_CELLS // clusters)
    for start in range(0, every * repeats, block):
        rows = np.arange(start, min(start + block, every * repeats))
        set_BC = generator.integers(0, 2, (rows.size, clusters), dtype=np.int8).astype(np.float64)
        set_BC[:, exact] = (rows[:, None] % every) >> np.arange(int(exact.sum())) & 1
        if start == 0:
            set_BC[0] = 0
        yield set_BC
