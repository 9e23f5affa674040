"""Settings of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_at_least, check_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """Base against adapted on the test split."""

    bootstrap: int = 2000
    """Resamples of the paired bootstrap behind the intervals and the p-values."""
    confidence: float = 0.95
    """Width of the intervals."""
    guard: tuple[str, ...] = ()
    """Data outside the domain on which the adapted model must not get worse."""
    guard_bound: float = 0.02
    """Relative loss on guard data beyond which the report warns."""
    topics: str | None = None
    """Table of texts of the domain with columns text and topic, for the relatedness of texts of one topic.
    Clusters of the corpus by its words if not given."""
    top_k: int = 100
    """Documents kept per query in the run files."""

    def __post_init__(self) -> None:
        check_at_least("bootstrap", self.bootstrap, 100)
        check_at_least("top_k", self.top_k, 10)
        check_fraction("confidence", self.confidence)
