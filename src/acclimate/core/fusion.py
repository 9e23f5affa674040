"""One ranking out of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acclimate.errors import UsageError

CONSTANT = 60
"""Cormack, Clarke and Buettcher's k."""


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[str]], weights: Sequence[float], constant: float = CONSTANT
) -> dict[str, float]:
    """Fuse rankings by weighted reciprocal ranks: score(d) = sum over rankings of weight / (constant + rank of d).

    Cormack, Clarke and Buettcher 2009 (SIGIR), with a weight per ranking; ranks begin at 1, and a document that a
    ranking lacks gets nothing from it.

    Args:
        rankings: of ids, best first, each id once.
        weights: one for each ranking.
        constant: the larger, the less the first places count for.

    Returns:
        Id -> score, score descending, then id ascending.
    """
    if len(weights) != len(rankings) or constant < 0 or min(weights, default=0) < 0:
        raise UsageError(
            f"fusion of {len(rankings)} rankings has the weights {list(weights)} and the constant {constant}",
            possible="a weight of 0 or more for each, and a constant of 0 or more",
        )
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        if weight == 0:
            continue
        for rank, identifier in enumerate(ranking, 1):
            scores[identifier] = scores.get(identifier, 0.0) + weight / (constant + rank)
    return dict(best(scores))


def best(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Id and score, score descending, then id ascending."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
