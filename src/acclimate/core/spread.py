"""The spread of a model's scores: the unit of margins and temperatures that hold for any model.

Models crowd their scores differently: random texts have cosines of 0.0 to 0.3 with one model, 0.75 to 0.85 with
another. A difference of 0.05 is nothing to the first and everything to the second. In units of the spread it means the
same: if all scores of a model are mapped to a * score + b (a > 0), the spread is multiplied by a, and so is every
margin and temperature given in it. Which candidates a margin keeps, and the softmax of score / temperature, stay.

Shapes: N queries, M documents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

QUERIES, DOCUMENTS = 128, 256
"""Size of the sample from which the spread is measured."""


def spread(score_NM: NDArray[np.floating], usable_NM: NDArray[np.bool_] | None = None) -> float:
    """Measure the spread: the standard deviation of one query's scores of documents, as the mean over the queries.

    Queries whose scores are all the same say nothing, and are left out.

    Args:
        score_NM: scores of documents that were not chosen for their query.
        usable_NM: False where a score does not count (a query's positive, an empty place); all count if not given.

    Returns:
        The spread; 0 where no query has two different scores.
    """
    if not score_NM.size:
        return 0.0
    score_NM = np.asarray(score_NM, np.float64)
    usable_NM = np.ones(score_NM.shape, np.bool_) if usable_NM is None else usable_NM
    count_N = usable_NM.sum(axis=1)
    divisor_N1 = np.maximum(count_N, 1)[:, None]
    mean_N1 = np.where(usable_NM, score_NM, 0.0).sum(axis=1, keepdims=True) / divisor_N1
    deviation_NM = np.where(usable_NM, score_NM - mean_N1, 0.0)
    spread_N = np.sqrt((deviation_NM**2).sum(axis=1) / divisor_N1[:, 0])
    known_N = spread_N[(count_N > 1) & (spread_N > 1e-9)]
    return float(known_N.mean()) if known_N.size else 0.0


def sampled(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """Draw places for the sample, at most `most` out of `count`, in ascending order: a function of the seed."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, count]).choice(count, most, replace=False))
