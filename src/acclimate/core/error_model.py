"""How sure it is that a kept result is right for a similar query: a curve of each entry, learned from comparisons.

vCache (Schroeder et al. 2025, arXiv 2502.03771): with similarity s between a new query and an entry, the entry's result
is right with probability L(s) = sigmoid(gamma (s - t)), and t and gamma are the entry's own. They are not known, so a
lower bound of L counts, and what is served at all is settled by a draw, so that over all queries no more than a share
delta is answered wrongly (their Eq. 7 and Algorithm 1).

Deviation: the paper estimates t and gamma by maximum likelihood, and the variance of t by a table where all right ones
lie above all wrong ones. Here their posterior is computed on a grid, which needs no such case: (1 - epsilon) L at the
epsilon-quantile, maximised over epsilon, is the paper's bound, with the quantile of L itself.

Shapes: N comparisons, T thresholds of the grid, G slopes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = np.linspace(0.0, 1.1, 89)
"""Above 1: an entry that is right for no other query."""
SLOPES = np.geomspace(4.0, 256.0, 13)
"""From a curve that rises over half of the range to a step."""
LEAST_COMPARISONS = 6
"""An entry with fewer is cold: nothing is known of it, and it never serves."""


def log_posterior(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logarithm of the posterior of an entry's threshold and slope, [T, G], up to a constant; the prior is even.

    Args:
        similarities: [N], of the queries that the entry was compared for.
        same: [N], whether its result was right for them.
    """
    margins_TGN = SLOPES[None, :, None] * (similarities[None, None, :] - THRESHOLDS[:, None, None])
    signed_TGN = np.where(same, margins_TGN, -margins_TGN)
    likelihood_TG: NDArray[np.float64] = -np.logaddexp(0.0, -signed_TGN).sum(-1)
    return likelihood_TG


def chance_of_right(similarity: float, log_TG: NDArray[np.float64]) -> float:
    """Give a lower bound of the probability that an entry's result is right for a query.

    Args:
        similarity: of the query to the entry.
        log_TG: see `log_posterior`.

    Returns:
        max over epsilon of (1 - epsilon) Q(epsilon), where Q is the quantile function of L(similarity) under the
        posterior; it rises with the similarity.
    """
    weights = np.exp(log_TG - log_TG.max()).ravel()
    weights /= weights.sum()
    curves_TG = 1.0 / (1.0 + np.exp(-SLOPES[None, :] * (similarity - THRESHOLDS[:, None])))
    order = np.argsort(-curves_TG.ravel(), kind="stable")
    at_least = np.cumsum(weights[order])
    return float(min(1.0, (curves_TG.ravel()[order] * at_least).max()))


def share_computed(chance: float, delta: float) -> float:
    """Give the probability with which a result is computed anew though there is an entry: the paper's tau.

    Args:
        chance: that the entry's result is right, or a lower bound of it.
        delta: the share of queries that may be answered wrongly.

    Returns:
        The least probability for which (1 - it) (1 - chance) <= delta.
    """
    return 0.0 if chance >= 1.0 - delta else (1.0 - delta - chance) / (1.0 - chance)


def sign_bits(vectors_ND: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Give a bit for each number of each vector, whether it is above 0, packed: uint8 [N, ceil(D / 8)].

    The share of bits in which two vectors differ grows with the angle between them.
    """
    packed: NDArray[np.uint8] = np.packbits(vectors_ND > 0, axis=1)
    return packed
