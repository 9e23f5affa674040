"""One data set alone, split."""

from __future__ import annotations

from collections.abc import Sequence

from acclimate.configs import PrepareConfig
from acclimate.data.records import Record
from acclimate.data.split import Source, Splits, split_sources
from acclimate.types import Kind, Split


def split_records(
    records: Sequence[Record], kind: Kind, given: frozenset[Split], config: PrepareConfig, seed: int
) -> Splits:
    """Assign every record of one data set to a split, as `split_sources` does for all of a run."""
    return split_sources([Source(records, kind, given, config)], seed)[0]
