"""The backend that `tune` has chosen for a run on this machine, which `serve` takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from acclimate.core.int8_linear import INT8, why_not_int8
from acclimate.errors import AcclimateError, StorageError
from acclimate.files import read_json, write_json
from acclimate.formats.engine_folder import Engine, read_engine
from acclimate.progress import say
from acclimate.runs.resolve import trained_hash
from acclimate.runs.run_folder import RunFolder

FILE = "backend.json"


@dataclass(frozen=True, slots=True)
class Backend:
    """Which engine computes a run's vectors, and how."""

    engine: Engine | Literal["torch"]
    precision: str
    """The weights' number format: float32, bfloat16, int8."""
    threads: int
    """How many were measured to be fastest; torch takes as many as cores are free."""
    export: str | None
    """Folder of the export, from the run's; None: torch runs the model with its adapter."""
    made_from: str
    """`trained_hash` of what was measured."""


def write_backend(folder: Path, backend: Backend) -> None:
    """Write the choice into what `tune` writes."""
    write_json(folder / FILE, asdict(backend))


def chosen_backend(run: Path) -> Backend | None:
    """Return the backend that was chosen for a run, or None where none was, or the run has been trained again since.

    Raises:
        StorageError: the file is damaged.
    """
    file = RunFolder(run).tuned / FILE
    if not file.is_file():
        return None
    try:
        backend = Backend(**read_json(file))
    except TypeError:
        raise StorageError(f"{file} is damaged", fix=f"Measure again: acclimate tune {run}") from None
    try:
        current = trained_hash(run) == backend.made_from
        if backend.export is not None:
            current &= read_engine(run / backend.export).made_from == backend.made_from
    except AcclimateError as error:
        say(f"warning: the backend that was chosen for {run} cannot be used: {error}")
        return None
    if backend.export is None and backend.precision == INT8 and (reason := why_not_int8()) is not None:
        say(f"warning: the backend that was chosen for {run} cannot be used: {reason}")
        return None
    if not current:
        say(f"warning: {run} was trained again after its backend was chosen; measure again: acclimate tune {run}")
        return None
    return backend
