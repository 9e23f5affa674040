"""The step that writes one artifact: made if its settings or its inputs have changed, else kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from acclimate import processes
from acclimate.files import (
    INPUTS_FILE,
    REPORT_FILE,
    artifact,
    read_json,
    storage_errors,
    work_folder,
    write_json,
)
from acclimate.ownership import MARKER_FILE, Objection, check_replaceable, claim_work, no_objection, written_by
from acclimate.progress import say
from acclimate.runs.differences import differences, is_current
from acclimate.runs.run_folder import ADAPTER_FILES, RunFolder, is_run
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
    reads: Sequence[str | Path] = (),
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
        seconds: the key of the step's duration in `timings`; without its ending, what its artifact is marked with.
        reads: files, folders and models (also of the hub) that it reads; none may lie in `out`, nor `out` in one.
        alone: the first process alone calls `make`: there is nothing to share.
        versioned: `out` is `RUN/adapter`, of which every version is kept: an adapter may be trained on from itself.

    Returns:
        what `out/report.json` holds.

    Raises:
        StorageError: another process writes the artifact, or it cannot be written.
        UsageError: something at `out` is not ours, or is read.
        AcclimateError: whatever `make` raises.
    """
    started, kind = time.monotonic(), seconds.removesuffix("_s")

    def looked_at() -> Path | None:
        check_replaceable(out, no_objection, () if versioned else parts_read(reads))
        found, why = _kept(out, settings, inputs, versioned)
        if found is None:
            _check_writable(out, no_adapter if versioned else written_by(kind))
        say(f"{name}: {why}")
        return found

    kept = processes.on_main(looked_at)
    if kept is not None:
        return read_json(kept / REPORT_FILE)  # type: ignore[return-value]
    work = Work(_never) if alone and not processes.is_main() else make()

    def write() -> R:
        with artifact(out, settings, inputs, kind=kind, publish=publish if versioned else None) as folder:
            report: Any = work.write(folder)
            report["timings"] = {seconds: round(time.monotonic() - started, 3)}
            write_json(folder / REPORT_FILE, report)
        return report  # type: ignore[no-any-return]

    if not processes.is_main():
        work.meanwhile()
    return processes.on_main(write)


def _check_writable(out: Path, objection: Objection) -> None:
    check_replaceable(out, objection)
    with storage_errors(out):
        claim_work(work_folder(out).parent)


def parts_read(names: Iterable[str | Path]) -> Iterator[str | Path]:
    """Yield the names; instead of a run's, those of its parts that others read."""
    for name in names:
        run = RunFolder(Path(name))
        parts = (run.dataset, run.negatives, run.adapter, run.reranker)
        if is_run(run.path) or no_adapter(run.adapter) == "":
            yield from (part for part in parts if part.exists())
        else:
            yield name


def no_adapter(out: Path) -> str:
    """The objection to taking what is at `RUN/adapter` for an adapter, or a model, from a training or another tool."""
    found = out.is_symlink() or any((out / name).is_file() for name in (MARKER_FILE, INPUTS_FILE, *ADAPTER_FILES))
    return "" if found and out.is_dir() else f"{out} is neither an adapter nor a model"


def _kept(
    out: Path, settings: Mapping[str, Any], inputs: Mapping[str, str], versioned: bool
) -> tuple[Path | None, str]:
    """The folder of the finished artifact, or None where it has to be made; and which of the two, in words."""
    run = RunFolder(out.parent)
    if versioned:
        restore(run)
    found = differences(out, settings, inputs)
    if not found:
        return out, f"{out} is kept: it is up to date"
    for folder in trained_before(run) if versioned else ():
        if is_current(folder, settings, inputs):
            return folder, f"{folder} is up to date, and {out} leads to another version, by choice"
    return None, f"runs{' again' * out.exists()}, because {_in_words(found)}"


def _in_words(parts: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
