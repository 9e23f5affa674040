"""Settings of `merge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acclimate.configs.checks import check_at_least, check_fraction
from acclimate.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeConfig:
    """Several adapters or models become one."""

    method: (
        Literal[
            "linear",
            "slerp",
            "multi-slerp",
            "task-arithmetic",
            "ties",
            "dare-linear",
            "dare-ties",
            "interpolate",
            "greedy-soup",
        ]
        | None
    ) = None
    """linear if not given. interpolate: one model and its base (WiSE-FT); greedy-soup: keeps what helps on dev."""
    weights: tuple[float, ...] = ()
    """One per model; equal if not given. Of interpolate: the model's share; the best on dev if not given."""
    density: float = 0.5
    """ties and dare-*: share of the elements of an update that are kept."""
    update_scale: float = 1.0
    """task-arithmetic, interpolate, ties, dare-*: the merged update is multiplied by it (lambda in the papers)."""
    merged_rank: int | None = None
    """Rank of the merged adapter; if not given, the ranks add up, and a weighted sum loses nothing."""
    folded: bool = False
    """Fold the merged adapter into its base: a self-contained model instead of an adapter."""
    curve: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """interpolate without weights: shares of the model that are tried, on dev and on guard data."""
    pool_documents: int = 2000
    """Documents that dev queries are ranked against when models are compared; the corpus, if it has no more."""

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise UsageError(f"density = {self.density}", possible="above 0, up to 1")
        if self.merged_rank is not None:
            check_at_least("merged_rank", self.merged_rank, 1)
        check_at_least("pool_documents", self.pool_documents, 1)
        for share in self.curve:
            if share != 1.0:
                check_fraction("curve", share)
