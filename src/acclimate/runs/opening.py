"""What stages read from a run's folder, or our error that names the command that makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from acclimate.configs import DEFAULT_MODEL, Retriever
from acclimate.data.dataset import Dataset, is_dataset, load_dataset
from acclimate.errors import StorageError, UsageError
from acclimate.formats.sources import resolve_model
from acclimate.models.text_encoder import TextEncoder
from acclimate.runs.resolve import load, load_pair, load_whole, resolve, trained_folder
from acclimate.runs.versions import in_use
from acclimate.text_use import LoadSettings
from acclimate.types import Pooling


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


def load_retriever(
    adapter: Path, wanted: Retriever, base: str | None = None, **loading: Unpack[LoadSettings]
) -> tuple[TextEncoder, Literal["base", "adapted"]]:
    """Load the embedding model that retrieves what a reranker reads, and say which of the two it is.

    Args:
        adapter: `RUN/adapter`; may be missing, unless the adapted model is wanted.
        wanted: see `RerankConfig.retriever`.
        base: where the base is; if not given: the adapter's own, and without an adapter the embedded default.
        loading: how it is loaded.

    Raises:
        StorageError: the adapted model is wanted and is not there.
    """
    if not _retrieves_adapted(adapter, wanted):
        return load_base(adapter, base, **loading), "base"
    return load(trained_folder(adapter), base=base, **loading), "adapted"


def load_current(adapter: Path, base: str | None = None, **loading: Unpack[LoadSettings]) -> TextEncoder:
    """Load the run's embedding model: the adapted one, if there is one, else the base."""
    return load_retriever(adapter, "auto", base, **loading)[0]


def load_base(adapter: Path, base: str | None = None, **loading: Unpack[LoadSettings]) -> TextEncoder:
    """Load the base of the run's adapter, used as the adapter uses it; where there is none yet, `base` as it is."""
    if not in_use(adapter).is_dir():
        return load_whole(base or DEFAULT_MODEL, **loading)
    return load_pair(adapter, base=base, **loading)[0]


def retriever_hash(adapter: Path, wanted: Retriever, base: str | None = None, *, pooling: Pooling | None = None) -> str:
    """Return what changes with what `load_retriever` gives."""
    if not in_use(adapter).is_dir():
        return resolve_model(base or DEFAULT_MODEL, pooling=pooling).fingerprint
    return f"{_retrieves_adapted(adapter, wanted)} {resolve(adapter, base=base).sha256}"


def _retrieves_adapted(adapter: Path, wanted: Retriever) -> bool:
    return wanted == "adapted" or (wanted == "auto" and in_use(adapter).is_dir())
