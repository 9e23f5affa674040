"""Settings of `route`, and of `search` and `serve` over several experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acclimate.configs.checks import check_at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteConfig:
    """Which of several adapters answers a query."""

    experts: tuple[str, ...] = ()
    """Further runs, whose adapters may answer beside the run's own."""
    outside: tuple[str, ...] = ()
    """Data that no expert was trained on: there the base should answer, or an expert that does no harm."""
    multi_domain: str | None = None
    """A run whose one adapter was trained on all domains, to compare with."""
    spanning: int = 200
    """Number of queries that are joined of two experts' test queries; both answers are asked for."""
    mixed_experts: int = 3
    """Most experts that share a query, where several are mixed or fused."""
    router: Literal["centroids", "tokens"] = "centroids"
    """What chooses the experts: centroids of their queries by the base's vectors (a pass of the base), or the query's
    tokens (no pass; fitted at the start to the training queries of the runs)."""

    def __post_init__(self) -> None:
        check_at_least("mixed_experts", self.mixed_experts, 1)
        check_at_least("spanning", self.spanning, 0)
