"""Settings of `tune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from acclimate.configs.checks import check_above

Workload: TypeAlias = Literal["one", "batch", "bulk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneConfig:
    """The fastest backend of this machine."""

    tune_for: Workload = "batch"
    """What shall be fast. one: a query alone; batch: 64 documents, as a service computes them; bulk: a corpus."""
    tune_seconds: float = 3.0
    """Seconds for which each backend runs at each number of threads and each of the three workloads."""

    def __post_init__(self) -> None:
        check_above("tune_seconds", self.tune_seconds, 0.0)
