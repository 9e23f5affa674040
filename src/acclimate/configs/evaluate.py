"""Settings of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_at_least, check_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """Base and adapted compared on the test split."""

    sign_flips: int = 2000
    """Number of random sign flips, which give intervals and p-values; where all flips are few, all are tried."""
    confidence: float = 0.95
    """Confidence level of the intervals."""
    guard: tuple[str, ...] = ()
    """Out-of-domain data on which the adapted model must not get worse."""
    guard_bound: float = 0.02
    """The report warns when the relative loss on guard data is larger than this."""
    topics: str | None = None
    """Table with columns text and topic, to measure whether texts of one topic are close to each other. If not given,
    the topics are clusters of the corpus by its words."""
    top_k: int = 100
    """Documents per query in the run files."""

    def __post_init__(self) -> None:
        check_at_least("sign_flips", self.sign_flips, 100)
        check_at_least("top_k", self.top_k, 10)
        check_fraction("confidence", self.confidence)
