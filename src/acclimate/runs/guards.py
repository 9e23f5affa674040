"""The data of `evaluate.guard`, on which forgetting is measured: read, hashed and named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acclimate.configs import PrepareConfig
from acclimate.data.build import build_dataset
from acclimate.data.dataset import Dataset
from acclimate.data.readers import source_hash
from acclimate.runs.run_folder import DATASET


def guard_data(sources: Sequence[str], *, seed: int, limit: int | None) -> list[Dataset]:
    """Each source as a dataset; how the run's own data is read (its columns, its corpus) says nothing about it.

    Raises:
        DataError: it cannot be read.
    """
    return [build_dataset(source, PrepareConfig(), seed=seed, limit=limit)[0] for source in sources]


def guard_hashes(sources: Sequence[str]) -> dict[str, str]:
    """The guard data among the inputs of an artifact."""
    return {f"guard {source}": source_hash(source) for source in sources}


def guard_names(sources: Sequence[str]) -> list[str]:
    """A short name of each guard, no two alike: its folder's or file's, the run's for `RUN/dataset`."""
    paths = [Path(source) for source in sources]
    names = [path.parent.name if path.name == DATASET else path.name for path in paths]
    return names if all(names) and len(set(names)) == len(names) else list(sources)
