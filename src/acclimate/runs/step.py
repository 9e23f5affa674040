"""The step that writes one artifact: made if its settings or its inputs have changed, else kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from acclimate import processes
from acclimate.files import REPORT_FILE, artifact, differences, is_current, read_json, write_json
from acclimate.progress import say
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.versions import publish, restore, trained_before

R = TypeVar("R", bound=Mapping[str, Any])
"""What an artifact's `report.json` holds: a TypedDict with `timings`."""


def _nothing() -> None:
    return None


def _never(folder: Path) -> Any:
    raise AssertionError(f"only the first process writes {folder}")


@dataclass(frozen=True, slots=True)
class Work(Generic[R]):
    """What is left to do of a step once its results are computed: to write them."""

    write: Callable[[Path], R]
    """Fills the new folder and returns its report, without `timings`; the first process alone calls it."""
    meanwhile: Callable[[], None] = _nothing
    """The others call this, for work that all share while the first one writes."""


def step(
    name: str,
    out: Path,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    make: Callable[[], Work[R]],
    *,
    seconds: str,
    alone: bool = False,
    versioned: bool = False,
) -> R:
    """Make an artifact, or keep it where it was made from these settings and inputs; says which, and why.

    All processes call it and get the report. The older artifact stays until the new one is whole.

    Args:
        name: of the step, for messages.
        out: the artifact's folder.
        settings: every effective value of the step; a part of a value's name is found by dots ("train.rank").
        inputs: name -> hash of what the step reads.
        make: computes the results in every process, and returns how they are written.
        seconds: the key of the step's duration in `timings`.
        alone: the first process alone calls `make`: there is nothing to share.
        versioned: `out` is `RUN/adapter`, of which every version is kept.

    Returns:
        what `out/report.json` holds.

    Raises:
        StorageError: another process writes the artifact, or it cannot be written.
        AcclimateError: whatever `make` raises.
    """
    started = time.monotonic()
    kept = processes.on_main(lambda: _kept(name, out, settings, inputs, versioned))
    if kept is not None:
        return read_json(kept / REPORT_FILE)  # type: ignore[return-value]
    work = Work(_never) if alone and not processes.is_main() else make()

    def write() -> R:
        with artifact(out, settings, inputs, publish=publish if versioned else None) as folder:
            report: Any = work.write(folder)
            report["timings"] = {seconds: round(time.monotonic() - started, 3)}
            write_json(folder / REPORT_FILE, report)
        return report  # type: ignore[no-any-return]

    if not processes.is_main():
        work.meanwhile()
    return processes.on_main(write)


def _kept(name: str, out: Path, settings: Mapping[str, Any], inputs: Mapping[str, str], versioned: bool) -> Path | None:
    """The folder of the finished artifact, or None where it has to be made; says which."""
    run = RunFolder(out.parent)
    if versioned:
        restore(run)
    found = differences(out, settings, inputs)
    if not found:
        say(f"{name}: {out} is kept: it is up to date")
        return out
    for folder in trained_before(run) if versioned else ():
        if is_current(folder, settings, inputs):
            say(f"{name}: {folder} is up to date, and {out} leads to another version, by choice")
            return folder
    say(f"{name}: runs{' again' * out.exists()}, because {_in_words(found)}")
    return None


def _in_words(parts: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
