"""Where `RUN/adapter` has led, and who made it: `RUN/adapters/history.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from acclimate.errors import StorageError
from acclimate.files import read_json, write_json
from acclimate.runs.run_folder import RunFolder

SetBy: TypeAlias = Literal["training", "promotion", "hand"]
"""Who made `RUN/adapter` lead to a version; "hand": a link that none of our functions made."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of the history."""

    version: str
    by: SetBy


def read_history(run: RunFolder) -> list[Entry]:
    """The steps, the oldest first; none where there is no history.

    Raises:
        StorageError: it is damaged.
    """
    if not run.adapter_history.exists():
        return []
    rows = read_json(run.adapter_history).get("history")
    try:
        found = [Entry(str(row["version"]), row["by"]) for row in rows or []]
    except (TypeError, KeyError):
        found = [Entry("", "hand")]
    if any(entry.by not in get_args(SetBy) or not entry.version for entry in found):
        raise StorageError(f"{run.adapter_history} is damaged", fix="Delete it; the versions stay.")
    return found


def write_history(run: RunFolder, history: Sequence[Entry]) -> None:
    """Write all steps, whole or not at all."""
    run.adapters.mkdir(parents=True, exist_ok=True)
    write_json(run.adapter_history, {"history": [{"version": entry.version, "by": entry.by} for entry in history]})
