"""What stages read from a run's folder, or our error that names the command that makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from acclimate.configs import RunConfig
from acclimate.data.dataset import Dataset, is_dataset, load_dataset
from acclimate.errors import StorageError, UsageError
from acclimate.formats.sources import resolve_model
from acclimate.models.encoder import Encoder
from acclimate.runs.resolve import load, load_pair, resolve

ADAPTER_FILES = ("adapter_config.json", "modules.json")
"""An adapter folder holds the first, a fully trained model only the second."""


def open_dataset(folder: Path) -> Dataset:
    """The dataset at `RUN/dataset`.

    Raises:
        StorageError: there is none.
    """
    if not is_dataset(folder):
        raise StorageError(
            f"{folder} holds no dataset", fix=f"Make it with: acclimate prepare DATA --out {folder.parent}"
        )
    return load_dataset(folder)


def open_retrieval_dataset(folder: Path) -> Dataset:
    """The dataset at `RUN/dataset`, which must have documents to rank.

    Raises:
        StorageError: there is none.
        UsageError: it holds labelled pairs.
    """
    data = open_dataset(folder)
    if data.kind == "pairs":
        raise UsageError(f"{folder} holds labelled pairs, no documents to rank", possible="a run on retrieval data")
    return data


def load_retriever(adapter: Path, config: RunConfig) -> tuple[Encoder, Literal["base", "adapted"]]:
    """Load the embedding model that retrieves what a reranker reads, and say which of the two it is.

    Args:
        adapter: `RUN/adapter`; may be missing, unless the config asks for it.
        config: the base, and `retriever`.

    Raises:
        StorageError: the adapted model is asked for and is not there.
    """
    if not _retrieves_adapted(adapter, config):
        return load_base(adapter, config), "base"
    require_adapter(adapter)
    return load(adapter, base=config.model, **config.loading), "adapted"


def load_base(adapter: Path, config: RunConfig) -> Encoder:
    """Load the base of the run's adapter, used as the adapter uses it; where there is none yet, the run's model."""
    if not adapter.is_dir():
        return Encoder.load(config.base_model, **config.loading)
    return load_pair(adapter, base=config.model, **config.loading)[0]


def retriever_hash(adapter: Path, config: RunConfig) -> str:
    """Return what changes with what `load_retriever` gives."""
    if not adapter.is_dir():
        return resolve_model(config.base_model, pooling=config.pooling).fingerprint
    return f"{_retrieves_adapted(adapter, config)} {resolve(adapter, base=config.model).sha256}"


def _retrieves_adapted(adapter: Path, config: RunConfig) -> bool:
    wanted = config.rerank.retriever
    return wanted == "adapted" or (wanted == "auto" and adapter.is_dir())


def require_adapter(folder: Path) -> None:
    """Make sure that an adapter, or a fully trained model, is at `RUN/adapter`.

    Raises:
        StorageError: there is none.
    """
    if not any((folder / name).exists() for name in ADAPTER_FILES):
        raise StorageError(f"{folder} holds no adapter", fix=f"Make it with: acclimate train {folder.parent}")
