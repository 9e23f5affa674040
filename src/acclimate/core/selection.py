"""Mining's choice: which of a query's ranked candidates become its hard negatives.

Shapes: N queries, C ranked candidates per query, n negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.configs import MineConfig

Floats = NDArray[np.float32]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen, and what was not."""

    columns: NDArray[np.int64]
    """[N, n] columns of the chosen candidates, best first; -1 fills the places for which there was none."""
    candidates: int
    """Candidates considered: usable and ranked above range_max."""
    removed: dict[str, int]
    """Filter -> candidates it removed, of those that the filters before it had left."""


def select_negatives(
    score_NC: Floats,
    usable_NC: Booleans,
    positive_N: Floats,
    config: MineConfig,
    priority_NC: NDArray[np.float64] | None = None,
) -> Selection:
    """Choose up to `config.num_negatives` hard negatives for every query.

    A candidate's position counts usable candidates only, so that a query's own positives do not use up
    `range_min`. The score filters look at what is left in [range_min, range_max). Margins are taken from one positive
    score per query; for several positives that is the lowest (as in sentence-transformers): a negative shall be
    below every one of them. The relative margin subtracts |positive| * margin, so that a negative score (a
    reranker's logit) lowers the threshold too.

    Args:
        score_NC: candidates' scores, best first.
        usable_NC: False where a candidate must not be a negative (a positive, the query itself, an empty place).
        positive_N: score of the query's lowest positive.
        config: range, score and margin filters, and how many.
        priority_NC: among what the filters leave, the lowest are taken; the best-ranked if not given.
    """
    position_NC = np.cumsum(usable_NC, axis=1) - 1
    alive_NC = usable_NC & (position_NC < config.range_max)
    candidates = int(alive_NC.sum())
    removed = {}
    for name, drop_NC in _filters(score_NC, position_NC, positive_N[:, None], config).items():
        removed[name] = int((alive_NC & drop_NC).sum())
        alive_NC &= ~drop_NC
    return Selection(_choose(alive_NC, priority_NC, config.num_negatives), candidates, removed)


def _filters(
    score_NC: Floats, position_NC: NDArray[np.int64], positive_N1: Floats, config: MineConfig
) -> dict[str, Booleans]:
    """Filter -> the candidates it drops, for the filters that are set."""
    drops: dict[str, Booleans] = {}
    if config.range_min:
        drops["range_min"] = position_NC < config.range_min
    if config.max_score is not None:
        drops["max_score"] = score_NC > config.max_score
    if config.min_score is not None:
        drops["min_score"] = score_NC < config.min_score
    if config.absolute_margin is not None:
        drops["absolute_margin"] = score_NC > positive_N1 - config.absolute_margin
    if config.relative_margin is not None:
        drops["relative_margin"] = score_NC > positive_N1 - np.abs(positive_N1) * config.relative_margin
    return drops


def _choose(alive_NC: Booleans, priority_NC: NDArray[np.float64] | None, count: int) -> NDArray[np.int64]:
    """[N, count] columns of the living candidates of lowest priority, in rank order, filled up with -1."""
    width = alive_NC.shape[1]
    column_C = np.arange(width)
    priority_NC = np.broadcast_to(column_C, alive_NC.shape) if priority_NC is None else priority_NC
    chosen = np.argsort(np.where(alive_NC, priority_NC, np.inf), axis=1, kind="stable")[:, :count]
    chosen = np.sort(np.where(np.take_along_axis(alive_NC, chosen, axis=1), chosen, width), axis=1)
    chosen = np.pad(chosen, ((0, 0), (0, count - chosen.shape[1])), constant_values=width)
    return np.where(chosen < width, chosen, -1)
