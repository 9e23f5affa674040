"""Mining's choice: which of a query's ranked candidates become its hard negatives.

Shapes: N queries, C ranked candidates per query, n negatives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.configs import MineConfig

Floats = NDArray[np.float32]
Booleans = NDArray[np.bool_]

LOOSENING = ("min_score", "spread_margin", "absolute_margin", "relative_margin", "max_score", "range_min")
"""The order in which filters are loosened: first the one against easy negatives, then those against likely positives:
the margins to the query's own positive, the fixed score, the mere rank."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen negatives, and what the filters removed."""

    columns: NDArray[np.int64]
    """[N, n] columns of the chosen candidates, best first; -1 fills the places for which there was none."""
    candidates: int
    """Candidates considered: usable and ranked above range_max."""
    removed: dict[str, int]
    """Filter -> number of candidates that it removed, of those that the filters before it had left."""


def select_negatives(
    score_NC: Floats,
    usable_NC: Booleans,
    positive_N: Floats,
    config: MineConfig,
    priority_NC: NDArray[np.float64] | None = None,
    *,
    spread: float = 0.0,
) -> Selection:
    """Choose up to `config.num_negatives` hard negatives for every query.

    Candidates are the first `range_max` usable ones, so that a query's own positives do not use up places. The score
    filters come first; `range_min` then skips the best-ranked of what they have left (as in sentence-transformers).
    Margins are taken from one positive score per query; for several positives that is the lowest (as there), so that
    a negative is below each of them. The relative margin subtracts |positive| * margin, so that a negative score (a
    reranker's logit) lowers the threshold too.

    Args:
        score_NC: candidates' scores, best first.
        usable_NC: False where a candidate must not be a negative (a positive, the query itself, an empty place).
        positive_N: score of the query's lowest positive.
        config: range, score and margin filters, and how many.
        priority_NC: among what the filters leave, the lowest are taken; the best-ranked if not given.
        spread: of the scores (`core.spread`), the unit of `spread_margin`.
    """
    alive_NC = usable_NC & (np.cumsum(usable_NC, axis=1) <= config.range_max)
    candidates = int(alive_NC.sum())
    removed = {}
    for name, drop_NC in _filters(score_NC, positive_N[:, None], config, spread).items():
        removed[name] = int((alive_NC & drop_NC).sum())
        alive_NC &= ~drop_NC
    if config.range_min:
        skipped_NC = alive_NC & (np.cumsum(alive_NC, axis=1) <= config.range_min)
        removed["range_min"] = int(skipped_NC.sum())
        alive_NC &= ~skipped_NC
    return Selection(_choose(alive_NC, priority_NC, config.num_negatives), candidates, removed)


def fill(
    selection: Selection,
    score_NC: Floats,
    usable_NC: Booleans,
    positive_N: Floats,
    config: MineConfig,
    examples_N: NDArray[np.int64],
    needed: int,
    *,
    spread: float = 0.0,
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Find negatives for some of the queries that have none, by loosening the filters one by one (`LOOSENING`).

    A filter that is loosened stays so for the next. Of what is left the lowest-scoring candidates are taken, and first
    for the queries whose candidates lie furthest below their positive: those are the least likely to be relevant.
    What is not usable stays out, and so does what is ranked beyond `range_max`.

    Args:
        selection: what the filters left.
        score_NC: candidates' scores, best first.
        usable_NC: False where a candidate must not be a negative.
        positive_N: score of the query's lowest positive.
        config: the filters that gave the selection.
        examples_N: training examples of each query that still lack a negative.
        needed: number of these examples that should get one; fewer do where there are no candidates.
        spread: of the scores, as for the selection.

    Returns:
        [N, n] columns as in the selection, and loosened filter -> number of queries that it gave negatives.
    """
    columns, filled = selection.columns.copy(), dict[str, int]()
    priority_C = np.arange(score_NC.shape[1], 0, -1, dtype=np.float64)
    for name in LOOSENING:
        if needed <= 0 or not score_NC.size:
            break
        loosened: dict[str, Any] = {name: 0 if name == "range_min" else None}
        if getattr(config, name) == loosened[name]:
            continue
        config = replace(config, **loosened)
        rows = np.flatnonzero((columns[:, 0] < 0) & (examples_N > 0))
        priority_NC = np.broadcast_to(priority_C, (len(rows), len(priority_C)))
        some = score_NC[rows], usable_NC[rows], positive_N[rows]
        fallback = select_negatives(*some, config, priority_NC, spread=spread).columns
        given = _give(columns, rows, fallback, some[0], some[2], examples_N, needed)
        if given:
            needed -= int(examples_N[given].sum())
            filled[name] = len(given)
    return columns, filled


def _give(
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
    fallback: NDArray[np.int64],
    score_RC: Floats,
    positive_R: Floats,
    examples_N: NDArray[np.int64],
    needed: int,
) -> list[int]:
    """Give negatives to queries that have none, first to those whose best candidate is furthest below the positive.

    Args:
        columns: [N, n] of all queries; changed in place.
        rows: [R] the queries in question.
        fallback: [R, n] the columns that they may get.
        score_RC: their candidates' scores.
        positive_R: score of each one's lowest positive.
        examples_N: training examples of each of the N queries that still lack a negative.
        needed: number of these examples that should get one.

    Returns:
        the queries that got theirs.
    """
    given: list[int] = []
    best_R = np.take_along_axis(score_RC, np.maximum(fallback[:, :1], 0), axis=1)[:, 0] - positive_R
    for row in np.argsort(np.where(fallback[:, 0] < 0, np.inf, best_R), kind="stable").tolist():
        if needed <= 0 or fallback[row, 0] < 0:
            break
        columns[rows[row]] = fallback[row]
        needed -= int(examples_N[rows[row]])
        given.append(int(rows[row]))
    return given


def _filters(score_NC: Floats, positive_N1: Floats, config: MineConfig, spread: float) -> dict[str, Booleans]:
    """Score filter -> the candidates it drops, for the filters that are set."""
    drops: dict[str, Booleans] = {}
    if config.max_score is not None:
        drops["max_score"] = score_NC > config.max_score
    if config.min_score is not None:
        drops["min_score"] = score_NC < config.min_score
    if (margin := config.effective_spread_margin) is not None:
        drops["spread_margin"] = score_NC > positive_N1 - margin * spread
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
