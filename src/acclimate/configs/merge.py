"""Settings of `merge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acclimate.configs.checks import check_at_least, check_fraction
from acclimate.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeConfig:
    """Several adapters or models merged into one."""

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
    """How models are merged; linear if not given. interpolate: one model with its base (WiSE-FT); greedy-soup: keeps
    the models that help on dev."""
    weights: tuple[float, ...] = ()
    """One weight per model; equal if not given. interpolate: the model's share; the best on dev if not given."""
    density: float = 0.5
    """ties and dare-*: share of an update's elements that is kept."""
    update_scale: float = 1.0
    """task-arithmetic, interpolate, ties, dare-*: factor of the merged update (lambda in the papers)."""
    merged_rank: int | None = None
    """Rank of the merged adapter. If not given, it is the sum of the ranks, with which a weighted sum loses nothing."""
    folded: bool = False
    """Fold the merged adapter into its base: a self-contained model instead of an adapter."""
    curve: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """interpolate without weights: the shares of the model to try, on dev and on guard data."""
    pool_documents: int = 2000
    """Number of documents that dev queries are ranked against when models are compared; all, if the corpus has
    fewer."""

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise UsageError(f"density = {self.density}", possible="above 0, up to 1")
        if self.merged_rank is not None:
            check_at_least("merged_rank", self.merged_rank, 1)
        check_at_least("pool_documents", self.pool_documents, 1)
        for share in self.curve:
            if share != 1.0:
                check_fraction("curve", share)
