"""Data sets of the library `datasets`: on the hub, and in folders that `save_to_disk` wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from acclimate.data.tables import Row, Rows
from acclimate.errors import DataError, first_line
from acclimate.paths import missing_path

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
HUB_TIMEOUT_S = 5
"""How long the hub may take to say whether it has a dataset."""
NO_DATASET = {
    "possible": "a file, a folder, or owner/name[:configuration] of a dataset in the local cache or within reach",
    "fix": "Check the path; without a connection, download the data and give the file.",
}
ONE, SEVERAL = "state.json", "dataset_dict.json"
"""Files of a folder that `Dataset.save_to_disk`, or that of several splits, wrote."""


def load_hub(name: str) -> dict[str, Any]:
    """Load a hub dataset, from the local cache or the hub: split name -> `datasets.Dataset`.

    Args:
        name: `owner/name` or `owner/name:configuration`.

    Raises:
        DataError: it is neither a path nor a dataset that can be loaded.
    """
    import datasets

    path, _, configuration = name.partition(":")
    if (wrong := missing_path(path)) is not None or (wrong := _unknown_to_hub(path)) is not None:
        raise DataError(f"{name}: {wrong}", **NO_DATASET)
    try:
        loaded = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # the library, its loaders and its HTTP client each have an error tree of their own
        raise DataError(
            f"{name}: no such file or folder here, and the hub's dataset of this name cannot be loaded "
            f"({first_line(error)})",
            **NO_DATASET,
        ) from None
    return dict(loaded)


def _unknown_to_hub(path: str) -> str | None:
    """Ask the hub once, without retries, whether it has a dataset; None where it has, or where the cache may know."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    if (Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___")).is_dir():
        return None
    try:
        HfApi().dataset_info(path, timeout=HUB_TIMEOUT_S)
    except OfflineModeIsEnabled:
        return None  # the library says at once that there is nothing in the cache
    except Exception as error:  # its HTTP client has an error tree of its own
        return (
            f"no such file or folder here, and the hub has no such dataset, or cannot be reached ({first_line(error)})"
        )
    return None


def hub_rows(table: Iterable[dict[str, Any]], source: str) -> Rows:
    """The rows of one split of a hub dataset."""
    for row, values in enumerate(table, start=1):
        yield Row(source, row, dict(values))


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / SEVERAL).is_file() or ((folder / ONE).is_file() and (folder / "dataset_info.json").is_file())


def load_saved(folder: Path) -> dict[str, Any]:
    """Load what `save_to_disk` wrote: split name -> `datasets.Dataset`; one by itself has the name train.

    Raises:
        DataError: it is damaged.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # as in load_hub
        raise DataError(f"{folder}: not readable as a data set that save_to_disk wrote ({first_line(error)})") from None
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def saved_files(folder: Path) -> list[Path]:
    """Every file of such a folder that says what the data set holds; caches of `datasets` are none of it."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("cache-"))
