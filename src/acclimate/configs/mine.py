"""Settings of `mine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acclimate.configs.checks import check_at_least, check_fraction
from acclimate.errors import UsageError

SPREAD_MARGIN = 0.27
"""`spread_margin` where no margin is given. For all-MiniLM-L6-v2 it is a relative margin of about 0.05."""

HARD_NEGATIVE_SHARE, HARD_NEGATIVE_SHARE_RERANKED = 0.95, 0.3
"""`hard_negative_share` where none is given. Where a reranker is the judge, a deep look into one query's ranking costs
as much as mining many queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MineConfig:
    """Hard negatives from the corpus."""

    teacher: str | None = None
    """Model that ranks the corpus for mining; the run's base model if not given."""
    reranker: str | None = None
    """Cross-encoder that rescores the candidates before they are filtered."""
    num_negatives: int = 4
    """Hard negatives kept per query."""
    range_min: int = 0
    """Number of best-ranked candidates to skip, of those that the filters leave."""
    range_max: int = 50
    """Candidates ranked below this position are ignored; known positives do not count as candidates."""
    min_score: float | None = None
    """Candidates with a lower score are dropped."""
    max_score: float | None = None
    """Candidates with a higher score are dropped."""
    absolute_margin: float | None = None
    """Candidates with a score above positive - absolute_margin are dropped; of several positives, the lowest counts."""
    relative_margin: float | None = None
    """Candidates with a score above positive - |positive| * relative_margin are dropped; of several positives, the
    lowest counts."""
    spread_margin: float | Literal["auto"] | None = "auto"
    """Candidates with a score above positive - spread_margin * spread are dropped; of several positives, the lowest
    counts. The spread is the standard deviation of a query's scores of random documents, so one number fits any model
    (with a reranker: of its candidates' scores). auto: 0.27, unless another margin is given; none: no such filter."""
    sampling: Literal["top", "random"] = "top"
    """top: take the best-ranked of the candidates that are left; random: draw among them."""
    hard_negative_share: float | Literal["auto"] = "auto"
    """Share of the training examples that should have a hard negative. Queries with too few are first ranked deeper
    than range_max (with a reranker only as far as this share asks for it). If still fewer have one, queries without any
    get their lowest-scoring candidates, past a filter: min_score, spread_margin, absolute_margin, relative_margin,
    max_score, range_min, loosened in this order. 0: neither. auto: 0.95, with a reranker 0.3."""
    include_positives: bool = False
    """Also write each query's ranked list, with its positives, to ranked.jsonl: for inspection, or to test
    rerankers."""
    output: Literal["n-tuple", "triplet", "labelled"] = "n-tuple"
    """Form of the training rows. n-tuple: one per positive, with all negatives; triplet: one per negative; labelled:
    one per document, labelled 1 or 0."""

    def __post_init__(self) -> None:
        check_at_least("num_negatives", self.num_negatives, 1)
        check_at_least("range_min", self.range_min, 0)
        if self.range_max <= self.range_min:
            raise UsageError(f"range_max = {self.range_max} is not above range_min = {self.range_min}")
        if self.hard_negative_share != "auto":
            check_fraction("hard_negative_share", self.hard_negative_share)
        if self.min_score is not None and self.max_score is not None and self.min_score >= self.max_score:
            raise UsageError(f"min_score = {self.min_score} is not below max_score = {self.max_score}")

    @property
    def effective_hard_negative_share(self) -> float:
        """`hard_negative_share` as a number."""
        if self.hard_negative_share != "auto":
            return self.hard_negative_share
        return HARD_NEGATIVE_SHARE_RERANKED if self.reranker is not None else HARD_NEGATIVE_SHARE

    @property
    def effective_spread_margin(self) -> float | None:
        """`spread_margin` as a number; None where there is no such filter."""
        if self.spread_margin != "auto":
            return self.spread_margin
        given = (self.absolute_margin, self.relative_margin)
        return SPREAD_MARGIN if given == (None, None) else None
