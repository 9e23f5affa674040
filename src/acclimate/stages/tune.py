"""`tune`: the backends of this machine, measured on a run's own texts; the fastest that holds the gate is chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import torch

from acclimate.configs import RunConfig, used
from acclimate.core.int8_linear import INT8, why_not_int8
from acclimate.cpu import adjust_threads, cores_allowed, cpu_facts
from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly
from acclimate.evaluation.gate import Gate, gate
from acclimate.evaluation.speeds import BULK, Speeds, speeds
from acclimate.files import REPORT_FILE, artifact, hash_folder, read_json, write_json
from acclimate.formats.engine_folder import Engine
from acclimate.models.backends.engine_encoder import EngineEncoder
from acclimate.models.dtypes import DTYPES
from acclimate.models.text_encoder import TextEncoder
from acclimate.ownership import check_replaceable, written_by
from acclimate.progress import say
from acclimate.runs.backend import Backend, write_backend
from acclimate.runs.opening import open_dataset
from acclimate.runs.resolve import load, trained_hash
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import parts_read
from acclimate.runs.tasks import one_task

KIND = "tune"
TORCH = (*DTYPES, INT8)
QUERIES = 512


class Measured(TypedDict):
    """A backend at one number of threads; texts per second."""

    backend: str
    engine: Engine | Literal["torch"]
    precision: str
    threads: int
    speeds: Speeds
    holds: bool
    """Whether it is float32, or has held the gate."""
    gate: NotRequired[Gate]
    """What the test split says, where it is not float32."""


class TuneReport(TypedDict):
    """What `tune` reports."""

    machine: str
    cores: int
    tuned_for: str
    measured: list[Measured]
    skipped: dict[str, str]
    """Backend -> why it was not measured."""
    chosen: Measured
    timings: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    engine: Engine | Literal["torch"]
    precision: str
    open: Callable[[int], TextEncoder]
    """Threads -> the encoder."""
    export: Path | None = None


def tune(run: Path, exports: Mapping[str, Path], skipped: Mapping[str, str], config: RunConfig) -> TuneReport:
    """Measure torch and the exports of a run's model, and choose; write it to `RUN/tuned`.

    Args:
        run: the run's folder; its dataset gives texts and judgements.
        exports: name -> folder of an export, which lies in the run.
        skipped: name of an export that there is not -> why.
        config: shared fields, `tune`, `max_loss`, `sign_flips`, `confidence`.

    Raises:
        StorageError: there is no dataset, or nothing trained.
        UsageError: `RUN/tuned` is somebody else's.
    """
    started, out, task = time.monotonic(), RunFolder(run).tuned, one_task(run, config)
    check_replaceable(out, written_by(KIND), parts_read([task.dataset, RunFolder(run).adapter, *config.named]))
    data = open_dataset(task.dataset)
    queries, documents = _texts(data)
    measured: list[Measured] = []
    candidates = list(_candidates(run, exports, config))
    for candidate in candidates:
        found = _gate_of(candidate, candidates[0], data, config, RunFolder(run).cache)
        for threads in sorted({1, cores_allowed()}):
            with _threads(threads):
                encoder = candidate.open(threads)
                rates = speeds(encoder, queries, documents, config.tune.tune_seconds)
            row: Measured = {
                "backend": candidate.name,
                "engine": candidate.engine,
                "precision": candidate.precision,
                "threads": threads,
                "speeds": rates,
                "holds": found is None or found["holds"],
            }
            measured.append(row if found is None else {**row, "gate": found})
            say(f"tune: {candidate.name}, threads: {threads}: {rates[config.tune.tune_for]:,.1f} texts/s")
    chosen = max((row for row in measured if row["holds"]), key=lambda row: row["speeds"][config.tune.tune_for])
    report: TuneReport = {
        "machine": cpu_facts()["model name"],
        "cores": cores_allowed(),
        "tuned_for": config.tune.tune_for,
        "measured": measured,
        "skipped": {**_not_here(), **skipped},
        "chosen": chosen,
        "timings": {"tune_s": round(time.monotonic() - started, 3)},
    }
    place = next(candidate.export for candidate in candidates if candidate.name == chosen["backend"])
    export = None if place is None else place.relative_to(run).as_posix()
    backend = Backend(chosen["engine"], chosen["precision"], chosen["threads"], export, trained_hash(run))
    inputs = {"dataset": hash_folder(task.dataset), "model": backend.made_from}
    # A machine is another one tomorrow, so what was measured before is never kept.
    with artifact(out, used(config, "tune"), inputs, kind=KIND) as folder:
        write_json(folder / REPORT_FILE, report)
        write_backend(folder, backend)
    return report


def _texts(data: Dataset) -> tuple[Sequence[str], Sequence[str]]:
    """Queries and documents, the same for every backend."""
    if data.kind == "pairs":
        texts = [text for split in data.pairs.values() for pair in split for text in (pair.sentence1, pair.sentence2)]
        return evenly(texts, QUERIES), evenly(texts, 2 * BULK)
    return evenly(list(data.queries.values()), QUERIES), evenly(list(data.corpus.values()), 2 * BULK)


def _candidates(run: Path, exports: Mapping[str, Path], config: RunConfig) -> Iterator[_Candidate]:
    """The reference, torch in float32, first."""
    for dtype in TORCH:
        if dtype == INT8 and why_not_int8() is not None:
            continue
        yield _Candidate(f"torch {dtype}", "torch", dtype, _torch_opener(run, config.model, dtype))
    for name, folder in exports.items():
        report = read_json(folder / REPORT_FILE)
        yield _Candidate(name, report["format"], report["precision"], _engine_opener(folder), folder)


def _not_here() -> dict[str, str]:
    """The number formats of torch that this machine cannot compute in, and why."""
    reason = why_not_int8()
    return {} if reason is None else {f"torch {INT8}": reason}


def _torch_opener(run: Path, base: str | None, dtype: str) -> Callable[[int], TextEncoder]:
    return lambda _: load(run, base=base, device="cpu", dtype=dtype)


def _engine_opener(folder: Path) -> Callable[[int], TextEncoder]:
    return lambda threads: EngineEncoder.open(folder, threads=threads)


def _gate_of(
    candidate: _Candidate, reference: _Candidate, data: Dataset, config: RunConfig, cache: Path
) -> Gate | None:
    """The gate on the test split, which an INT8 export has passed already; None for float32."""
    if candidate.precision == "float32":
        return None
    if candidate.export is not None:
        test: Gate = read_json(candidate.export / REPORT_FILE)["gate"]["test"]
        return test
    threads = torch.get_num_threads()
    before, after = (one.open(threads) for one in (reference, candidate))
    loss = config.export.max_loss
    return gate(before, after, data, "test", config.evaluate, loss=loss, seed=config.seed, cache=cache)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute on so many threads."""
    before = adjust_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
