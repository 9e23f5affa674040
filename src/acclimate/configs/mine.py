"""Settings of `mine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acclimate.configs.checks import check_at_least, check_fraction
from acclimate.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class MineConfig:
    """Hard negatives from the corpus."""

    teacher: str | None = None
    """Model that ranks the corpus for mining; the run's own base model if not given."""
    reranker: str | None = None
    """Cross-encoder that rescores the candidates before they are filtered."""
    num_negatives: int = 4
    """Hard negatives kept per query."""
    range_min: int = 0
    """So many best-ranked candidates are skipped; known positives do not count as candidates."""
    range_max: int = 50
    """Candidates ranked below this position are not considered."""
    min_score: float | None = None
    """Candidates scoring below this are dropped."""
    max_score: float | None = None
    """Candidates scoring above this are dropped."""
    absolute_margin: float | None = None
    """Drop candidates whose score is above positive - absolute_margin; the lowest of several positives counts."""
    relative_margin: float | None = 0.05
    """Drop candidates whose score is above positive - |positive| * relative_margin (the lowest of several)."""
    sampling: Literal["top", "random"] = "top"
    """Take the best-ranked candidates, or draw among them."""
    hard_negative_share: float = 0.3
    """Where fewer of the training examples get a hard negative, filters are loosened for queries without any until so
    many have one: min_score, absolute_margin, relative_margin, max_score, range_min, in this order; 0: never."""
    include_positives: bool = False
    """Also write every query's ranked list, its positives in place (ranked.jsonl): to inspect, or to test rerankers."""
    output: Literal["n-tuple", "triplet", "labelled"] = "n-tuple"
    """Training rows: all negatives in one row per positive, one row per negative, or a label of 1 or 0 per document."""

    def __post_init__(self) -> None:
        check_at_least("num_negatives", self.num_negatives, 1)
        check_at_least("range_min", self.range_min, 0)
        if self.range_max <= self.range_min:
            raise UsageError(f"range_max = {self.range_max} is not above range_min = {self.range_min}")
        check_fraction("hard_negative_share", self.hard_negative_share)
        if self.min_score is not None and self.max_score is not None and self.min_score >= self.max_score:
            raise UsageError(f"min_score = {self.min_score} is not below max_score = {self.max_score}")
