"""What `report.json` of mining holds, field by field."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class MineReport(TypedDict):
    """What `mine` reports: the counts of `audit.json`, and the files."""

    queries: int
    positives: int
    negatives: int
    candidates: int
    near_copies: int
    """Documents that are nearly a positive of their query, and so were no candidates."""
    removed: dict[str, int]
    """Filter -> candidates that it has removed, of those that the filters before it had left."""
    filled: dict[str, int]
    """Loosened filter -> queries that got (some of) their negatives only so; range_max: by looking deeper."""
    hard_negative_share: float
    """Share of the training examples with a hard negative, mined or given."""
    score_spread: float
    """Standard deviation of a query's scores of random documents: the unit of spread_margin."""
    spread_margin: float | None
    """None where there was no such filter."""
    mean_positive_score: float | None
    mean_negative_score: float | None
    queries_without_negatives: int
    queries_with_too_few: int
    given_negatives_dropped: int
    """Negatives of the data that are a positive, the query, or held out: a dev or test query, or judged for one."""
    never_mined: dict[str, int]
    """Documents of the corpus that are held out: queries, those that are dev or test queries."""
    warnings: list[str]
    """What should be looked at before a training."""
    rows: dict[str, int]
    """File -> its rows."""
    timings: NotRequired[dict[str, float]]
