"""Speed beside other processes: threads chosen by the cores that are free, against a fixed number of them.

Three states of the machine: idle; one core taken by one busy process; a job of as many busy threads as there are cores.
In each, encoding and training run in processes of their own: before (one thread per core, which spin while they wait),
and after (as the command line runs now). Tokens are counted over the last half of the time, when a change of threads at
its beginning is over. The last columns are the rate as a share of the same side's rate on the idle machine, and of the
faster side's. It takes five minutes on two cores.

    python benchmarks/threads.py [--seconds 10] [--dtype bfloat16] [--states idle taken job] [--sides before after]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from acclimate.configs import RunConfig, TrainConfig
from acclimate.core.lora import attach, trainable_parameters
from acclimate.cpu import SPINS
from acclimate.errors import Interrupted
from acclimate.models.encoder import Encoder
from acclimate.training.fit import StepResult, fit
from acclimate.training.objectives import info_nce
from acclimate.training.schedule import TaskSchedule
from acclimate.types import Example
from common import docstring_pairs, has_bfloat16, processor, table

STATES = {"idle": "idle", "taken": "one core taken", "job": "a job of {cores} threads"}
WORK = ("encoding", "training")
SIDES = {
    "before": {"OMP_NUM_THREADS": "{cores}"},
    "after": {"GOMP_SPINCOUNT": str(SPINS)},  # what `acclimate.cpu.sleep_while_waiting` sets in the command line
    "after, spinning": {},
}
"""Side -> the environment of its processes. The last one shows what it costs, or gains, that threads sleep."""
MODEL = "all-MiniLM-L6-v2"
TEXTS = 120
BATCH, RANK, RATE = 32, 16, 1e-3
SPIN = "while True: pass"
JOB = "import torch\nx = torch.ones(1500, 1500)\nwhile True: x = (x @ x).clamp(max=1.0)"
"""Threads of OpenMP, which wait for one another, as those of many jobs do."""


def main() -> None:
    """Measure every state, kind of work and side in turn; print the processor, what was said, and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one measurement, without loading")
    parser.add_argument("--dtype", default="bfloat16" if has_bfloat16() else "float32")
    parser.add_argument("--states", nargs="+", choices=list(STATES), default=list(STATES))
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=["before", "after"])
    parser.add_argument("--inside", choices=WORK, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments.inside, arguments.dtype, arguments.seconds)))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print(f"{processor()}, {cores} cores, {arguments.dtype}, {MODEL}", flush=True)
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for state in arguments.states:
        with others(state, cores):
            for work in WORK:
                for side in arguments.sides:
                    found[state, work, side] = run(work, side, cores, arguments)
    rows = []
    for (state, work, side), result in found.items():
        idle = {other: found[key]["rate"] for other in arguments.sides if (key := ("idle", work, other)) in found}
        bases = (idle[side], max(idle.values())) if idle else ()
        shares = [f"{100 * result['rate'] / rate:.0f} %" for rate in bases] or ["", ""]
        name = STATES[state].format(cores=cores)
        rows.append([work, name, side, f"{result['threads']:g}", f"{result['rate']:,.0f}", *shares])
    rows.sort(key=lambda row: WORK.index(row[0]))
    print(table(["work", "machine", "side", "threads", "tokens/s", "of its own idle", "of the best idle"], rows))


@contextmanager
def others(state: str, cores: int) -> Iterator[None]:
    """What else runs on the machine, for as long as the context lasts."""
    commands: dict[str, list[str]] = {"idle": [], "taken": [SPIN], "job": [JOB]}
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for code in commands[state]]
    try:
        time.sleep(5 if running else 0)  # until the libraries are loaded
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def run(work: str, side: str, cores: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure in a fresh process, because OpenMP reads its environment once."""
    unset = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {name: value.format(cores=cores) for name, value in SIDES[side].items()}
    command = [sys.executable, __file__, "--inside", work, "--dtype", arguments.dtype]
    done = subprocess.run(
        [*command, "--seconds", str(arguments.seconds)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{work}, {side}: {result}", file=sys.stderr, flush=True)
    return result


def measure(work: str, dtype: str, seconds: float) -> dict[str, float]:
    """Tokens per second over the last half of the time, and the number of threads at its end."""
    encoder = Encoder.load(MODEL, device="cpu", dtype=dtype)
    marks = [(0.0, 0), *(encode if work == "encoding" else train)(encoder, seconds)]
    end, tokens = marks[-1]
    half, before = [mark for mark in marks if mark[0] <= end / 2][-1]
    rate = (tokens - before) / (end - half)
    return {"rate": round(rate, 1), "threads": torch.get_num_threads(), "pieces": len(marks) - 1}


def encode(encoder: Encoder, seconds: float) -> list[tuple[float, int]]:
    """(Seconds, tokens) so far, after each round of a few chunks."""
    texts = [f"{query}\n{document}" for query, document in docstring_pairs(TEXTS)]
    tokens = int(encoder.tokenise(texts).lengths.sum())
    started, marks = time.perf_counter(), []
    while not marks or marks[-1][0] < seconds:
        encoder.encode(texts)
        marks.append((time.perf_counter() - started, tokens * (len(marks) + 1)))
    return marks


def train(encoder: Encoder, seconds: float) -> list[tuple[float, int]]:
    """(Seconds, tokens) so far, after each step of a training of LoRA."""
    examples = [Example(anchor=query, positive=document) for query, document in docstring_pairs(TEXTS)]
    config = RunConfig(train=TrainConfig(batch_size=BATCH, rank=RANK, checkpoint_steps=10_000))
    attach(encoder.model, config.train.targets, rank=RANK)
    course = TaskSchedule(
        examples=len(examples), batch_size=BATCH, epochs=1000.0, seed=0, learning_rate=RATE, warmup_fraction=0.1
    )
    loss_fn = info_nce(encoder, examples, course, config.objective, config.train)
    started, marks, tokens = time.perf_counter(), [], 0

    def step(number: int) -> StepResult:
        nonlocal tokens
        if marks and marks[-1][0] > seconds:
            raise KeyboardInterrupt  # as a user stops a training
        result = loss_fn(number)
        tokens += result.tokens
        marks.append((time.perf_counter() - started, tokens))
        return result

    with tempfile.TemporaryDirectory() as folder, suppress(Interrupted):
        fit(
            trainable_parameters(encoder.model),
            step,
            course,
            config.train,
            selection=None,
            folder=Path(folder) / "work",
            metrics=Path(folder) / "metrics.jsonl",
            identity="benchmark",
            dtype=str(encoder.dtype).removeprefix("torch."),
        )
    return marks


if __name__ == "__main__":
    main()
