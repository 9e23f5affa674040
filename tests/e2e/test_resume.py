"""Killed ten times at random points and started again: the adapter is an undisturbed run's, bit for bit.

The kills are SIGKILL, some of them while a checkpoint or the adapter is being written. The killed commands are forked
from a server that has imported the libraries, which saves ten imports; the last start is the command line proper.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acclimate.cli.main import main
from acclimate.configs import RunConfig, TrainConfig, dump_config
from acclimate.files import hash_file
from tests.tiny_run import write_tiny_bert, write_tiny_retrieval

STEPS = 45
KILLS = 10
PRELOADED = ["acclimate.cli.main", "acclimate.stages.train", "transformers.models.bert.modeling_bert", "faiss"]
POLL_S = 0.0005
PATIENCE_S = 120.0


def command(run: Path) -> None:
    """What the forked process runs: the command line's own entry."""
    sys.stderr = (run / "stderr.txt").open("a")
    main(["train", str(run)])


def prepare_run(run: Path, model: Path) -> Path:
    write_tiny_retrieval(run / "dataset")
    settings = TrainConfig(
        batch_size=8,
        epochs=STEPS / 3,
        rank=4,
        lora_dropout=0.2,
        learning_rate=0.01,
        checkpoint_steps=1,
        eval_steps=6,
        patience=100,
        dev_documents=20,
    )
    config = RunConfig(model=str(model), pooling="mean", device="cpu", dtype="float32", train=settings)
    (run / "config.toml").write_text(dump_config(config))
    return run


def steps_done(run: Path) -> list[dict[str, Any]]:
    """The rows of training steps, without what differs from run to run: the speed."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "tokens_per_s"} for row in rows]


def saved_step(run: Path) -> int:
    return max((int(path.name[5:]) for path in (run / ".work/adapter/checkpoints").glob("step-*")), default=0)


def kill_when(run: Path, condition: Callable[[], bool], context: Any) -> bool:
    """Start the command, kill it as soon as the condition holds; False if it was done before."""
    process = context.Process(target=command, args=(run,))
    process.start()
    deadline = time.monotonic() + PATIENCE_S
    while process.is_alive() and not condition():
        assert time.monotonic() < deadline, (run / "stderr.txt").read_text()
        time.sleep(POLL_S)
    if not process.is_alive():
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return bool(process.exitcode == -signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_ten_times_ends_bit_identical(tmp_path: Path) -> None:
    model = write_tiny_bert(tmp_path / "tiny-bert")
    undisturbed, killed = prepare_run(tmp_path / "undisturbed", model), prepare_run(tmp_path / "killed", model)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    quiet = context.Process(target=command, args=(undisturbed,))
    quiet.start()

    draw = random.Random(0)
    writing = killed / ".work/adapter/checkpoints/partial"
    kills = while_writing = 0
    for attempt in range(KILLS):
        start = saved_step(killed)
        target = min(start + draw.randint(1, 4), STEPS - KILLS + attempt)
        pause = draw.uniform(0, 0.01)
        if attempt % 2:  # while the checkpoint of a later step is half there

            def condition(target: int = target) -> bool:
                return saved_step(killed) >= target and writing.exists()
        else:

            def condition(target: int = target, pause: float = pause) -> bool:
                if saved_step(killed) < target:
                    return False
                time.sleep(pause)
                return True

        kills += kill_when(killed, condition, context)
        while_writing += writing.exists()
    assert kills == KILLS
    assert while_writing >= 2, "too few kills met a checkpoint that was being written"
    assert 0 < saved_step(killed) < STEPS
    assert not (killed / "adapter").exists()

    quiet.join()
    finished = subprocess.run(
        [sys.executable, "-m", "acclimate.cli.main", "train", str(killed)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert f"goes on from step {saved_step_before(finished.stderr)} of {STEPS}" in finished.stderr
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert hash_file(undisturbed / "adapter" / name) == hash_file(killed / "adapter" / name), name
    assert steps_done(undisturbed) == steps_done(killed)
    assert len([row for row in steps_done(killed) if "loss" in row]) == STEPS


def saved_step_before(stderr: str) -> int:
    """The step that a start says it goes on from."""
    (line,) = [line for line in stderr.splitlines() if "goes on from step" in line]
    return int(line.split("goes on from step ")[1].split()[0])
