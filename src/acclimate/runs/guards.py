"""The data of `evaluate.guard`, on which forgetting is measured: read, hashed and named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acclimate.configs import PrepareConfig
from acclimate.data.build import build_dataset
from acclimate.data.dataset import Dataset
from acclimate.data.readers import source_hash
from acclimate.errors import DataError
from acclimate.progress import say
from acclimate.runs.run_folder import DATASET


def guard_data(sources: Sequence[str], *, seed: int, limit: int | None, undivided: bool = False) -> list[Dataset]:
    """Read each source as a dataset; how the run's own data is read (its columns, its corpus) says nothing about it.

    Args:
        sources: files, folders, or datasets on the hub.
        seed: of the splits.
        limit: at most so many queries of each.
        undivided: all of it is measured, or the test split that a source defines.

    Raises:
        DataError: it cannot be read.
    """
    if undivided:
        return [build_dataset(source, PrepareConfig(), seed=seed, limit=limit, whole="test")[0] for source in sources]
    return [_guard(source, seed, limit) for source in sources]


def _guard(source: str, seed: int, limit: int | None) -> Dataset:
    """Divided as data of a run is, so that the rest may be retained; too little to be divided is all measured."""
    settings = PrepareConfig()
    try:
        return build_dataset(source, settings, seed=seed, limit=limit)[0]
    except DataError:
        data = build_dataset(source, settings, seed=seed, limit=limit, whole="test")[0]  # or it cannot be read
        say(f"guard {source} is too small to be divided: all of it is measured")
        return data


def guard_hashes(sources: Sequence[str]) -> dict[str, str]:
    """The guard data among the inputs of an artifact."""
    return {f"guard {source}": source_hash(source) for source in sources}


def guard_names(sources: Sequence[str]) -> list[str]:
    """A short name of each guard, no two alike: its folder's or file's, the run's for `RUN/dataset`."""
    paths = [Path(source) for source in sources]
    names = [path.parent.name if path.name == DATASET else path.name for path in paths]
    return names if all(names) and len(set(names)) == len(names) else list(sources)
