"""Two processes do what one does: the same negatives, gradients, weights and scores, written and said once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from acclimate.configs import ObjectiveConfig, RunConfig, TrainConfig, dump_config
from acclimate.files import locked
from tests.e2e.test_tasks import write_config, write_sources
from tests.flows.test_three_stages import write_source
from tests.launch import Ended, launch
from tests.tiny_run import write_tiny_bert, write_tiny_retrieval

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
TRAIN = TrainConfig(
    batch_size=8,
    epochs=4,
    rank=4,
    learning_rate=0.01,
    checkpoint_steps=1,
    eval_steps=4,
    patience=100,
    dev_documents=20,
    activation_memory_gb=6e-5,  # about ten texts' activations: several chunks, some of them computed twice
)
FULL = replace(TRAIN, full=True, learning_rate=1e-3)
STEPS = 12
TRAIN_FULL = "full = true"


def a_run(run: Path, train: TrainConfig = TRAIN, objective: ObjectiveConfig | None = None) -> Path:
    model = run.parent / "tiny-bert"
    if not model.exists():
        write_tiny_bert(model)
    write_tiny_retrieval(run / "dataset")
    tiny: dict[str, Any] = {"model": str(model), "pooling": "mean", "device": "cpu", "dtype": "float32"}
    config = RunConfig(**tiny, train=train, objective=objective or ObjectiveConfig())
    (run / "config.toml").write_text(dump_config(config))
    return run


def together(run: Path, command: str, count: int) -> list[Ended]:
    ended = launch(run, *[[command, str(run)]] * count)
    assert [process.code for process in ended] == [0] * count, ended
    return ended


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_training(run: Path, expected: Path) -> None:
    """The steps and the weights agree up to the rounding of sums in another order."""
    weights = (
        "model.safetensors" if TRAIN_FULL in (expected / "config.toml").read_text() else "adapter_model.safetensors"
    )
    for row, other in zip(rows(run), rows(expected), strict=True):
        for name in {"step", "tokens", "loss", "grad_norm", "dev"} & set(other):
            assert row[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name
    found, wanted = load_file(run / "adapter" / weights), load_file(expected / "adapter" / weights)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if name.endswith("key.bias"):
            continue  # shifts a query's scores alike: no gradient but rounding, which Adam blows up
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    "train",
    [
        replace(TRAIN, lora_dropout=0.2),
        FULL,
        replace(TRAIN, sides="query"),
        replace(TRAIN, shard="fsdp", gradient_checkpointing=True),
        replace(FULL, shard="fsdp"),
    ],
    ids=["lora with dropout", "full", "query side", "lora, sharded", "full, sharded"],
)
def test_training_on_two_is_training_on_one(tmp_path: Path, train: TrainConfig) -> None:
    one, two = a_run(tmp_path / "one", train), a_run(tmp_path / "two", train)
    together(one, "train", 1)
    first, second = together(two, "train", 2)
    assert_same_training(two, one)
    assert len([row for row in rows(two) if "loss" in row]) == STEPS
    assert "dev ndcg@10" in first.stderr and "planned steps" in first.stdout
    assert (second.stdout, second.stderr) == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "train", [replace(TRAIN, remine_steps=5), replace(TRAIN, shard="fsdp")], ids=["mined again", "sharded"]
)
def test_what_belongs_to_no_example_is_the_same_on_two(tmp_path: Path, train: TrainConfig) -> None:
    """A learned temperature, a parameter of the loss's own, and out-of-domain texts that are retained."""
    (tmp_path / "other.txt").write_text("w20 w21\nw22\nw23 w24 w25\nw26 w27\n", encoding="utf-8")
    objective = ObjectiveConfig(temperature_kind="learned", retain_data=str(tmp_path / "other.txt"))
    one, two = a_run(tmp_path / "one", train, objective), a_run(tmp_path / "two", train, objective)
    together(one, "train", 1)
    together(two, "train", 2)
    assert_same_training(two, one)
    temperatures = [[row["temperature"] for row in rows(run) if "temperature" in row] for run in (one, two)]
    assert temperatures[1] == pytest.approx(temperatures[0], rel=1e-4) and len(temperatures[0]) == STEPS
    assert temperatures[0][-1] != temperatures[0][0]
    assert max(row.get("retain_distance", 0.0) for row in rows(two)) > 0


@pytest.mark.slow
def test_three_stages_on_two_are_those_on_one(tmp_path: Path) -> None:
    write_tiny_bert(tmp_path / "tiny-bert")
    source = write_source(tmp_path / "source")
    flags = ["--model", str(tmp_path / "tiny-bert"), "--pooling", "mean", "--device", "cpu", "--dtype", "float32"]
    flags += ["--recipe", "three-stage", "--batch-size", "8", "--rank", "2", "--learning-rate", "0.02"]
    flags += ["--split-by", "query", "--sign-flips", "100"]
    scores = []
    for count in (1, 2):
        run = tmp_path / f"on-{count}"
        run.mkdir()
        ended = launch(run, *[["adapt", str(source), "--out", str(run), *flags]] * count)
        assert [process.code for process in ended] == [0] * count, ended
        assert "".join(process.stdout for process in ended).count("verdict") == 1
        stages = json.loads((run / "report.json").read_text())["stages"]
        scores.append([row[name] for row in stages for name in ("dev_before", "dev_after")])
        assert [row["stage"] for row in stages] == ["1-pretrain", "2-finetune", "3-merge"]
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)


@pytest.mark.slow
def test_several_datasets_on_two_are_those_on_one(tmp_path: Path) -> None:
    model = write_tiny_bert(tmp_path / "tiny-bert")
    write_sources(tmp_path)
    config = write_config(tmp_path, model)
    found = []
    for count in (1, 2):
        run = tmp_path / f"on-{count}"
        run.mkdir()
        ended = launch(run, *[["adapt", "--out", str(run), "--config", str(config)]] * count)
        assert [process.code for process in ended] == [0] * count, ended
        found.append([row["loss"] for row in rows(run) if "loss" in row])
        assert {row.get("task") for row in rows(run) if "loss" in row} == {"answers", "alike"}
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("train", [TRAIN, replace(FULL, shard="fsdp")], ids=["lora", "full, sharded"])
def test_a_checkpoint_moves_between_numbers_of_processes(tmp_path: Path, train: TrainConfig) -> None:
    """Killed under two processes, then under one, and ended by two: with whole weights or sharded ones."""
    undisturbed, moved = a_run(tmp_path / "undisturbed", train), a_run(tmp_path / "moved", train)
    together(undisturbed, "train", 1)
    for count, step in ((2, 4), (1, 8)):
        launch(moved, *[["train", str(moved)]] * count, kill_when=lambda step=step: saved_step(moved) >= step)
        assert step <= saved_step(moved) < STEPS
    assert "goes on from step" in together(moved, "train", 2)[0].stderr
    assert_same_training(moved, undisturbed)


def saved_step(run: Path) -> int:
    return max((int(path.name[5:]) for path in (run / ".work/adapter/checkpoints").glob("step-*")), default=0)


@pytest.mark.slow
def test_a_sharded_training_goes_on_unsharded(tmp_path: Path) -> None:
    longer = replace(FULL, epochs=10)  # time to be killed in, on a busy machine too
    undisturbed, moved = a_run(tmp_path / "undisturbed", longer), a_run(tmp_path / "moved", longer)
    together(undisturbed, "train", 1)
    sharded = ["train", str(moved), "--shard", "fsdp"]
    launch(moved, sharded, sharded, kill_when=lambda: saved_step(moved) >= 5)
    assert 5 <= saved_step(moved) < len([row for row in rows(undisturbed) if "loss" in row])
    assert "goes on from step" in together(moved, "train", 2)[0].stderr
    assert_same_training(moved, undisturbed)


def test_mining_and_evaluation_on_two_are_those_on_one(tmp_path: Path) -> None:
    one, two = a_run(tmp_path / "one"), a_run(tmp_path / "two")
    together(one, "train", 1)
    (two / "adapter").symlink_to(one / "adapter")
    for command in ("mine", "evaluate"):
        together(one, command, 1)
        together(two, command, 2)
    assert examples(two) == examples(one)
    found, wanted = (json.loads((run / "evaluation/report.json").read_text()) for run in (two, one))
    for kind in ("base", "adapted", "bm25"):
        assert found["test"][kind] == pytest.approx(wanted["test"][kind], rel=1e-5)


def examples(run: Path) -> list[dict[str, Any]]:
    """The mined rows; scores to the digits that do not depend on how many texts are computed together."""
    found = [json.loads(line) for line in (run / "negatives/examples.jsonl").read_text().splitlines()]
    return [row | {"scores": [round(score, 4) for score in row.get("scores", [])]} for row in found]


def test_where_one_fails_all_end_and_one_says_why(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    missing = ["--model", str(tmp_path / "missing")]
    ended = launch(run, ["train", str(run)], ["train", str(run), *missing])
    assert all(process.code for process in ended)
    assert "".join(process.stderr for process in ended).count("acclimate:") == 1
    assert str(tmp_path / "missing") in ended[1].stderr
    assert not (run / "adapter").exists()


def test_a_run_in_use_is_refused_once(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    with locked(run):
        ended = launch(run, *[["mine", str(run)]] * 2)
    assert all(process.code for process in ended)
    (message,) = [process.stderr for process in ended if process.stderr]
    assert "another acclimate is at work" in message


def test_what_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    ended = launch(tmp_path, *[["search", "run", "rain"]] * 2)
    assert [process.code for process in ended] == [2, 2]
    assert "2 processes were started for acclimate search" in ended[0].stderr
    assert ended[1].stderr == ""
    run = a_run(tmp_path / "run")
    ended = launch(tmp_path, *[["train", str(run), "--device", "mps"]] * 2)
    assert [process.code for process in ended] == [2, 2]


@pytest.mark.slow
def test_torchrun_starts_the_whole_journey(tmp_path: Path) -> None:
    """One real launcher: data in, a report out, once."""
    write_tiny_bert(tmp_path / "tiny-bert")
    pairs = tmp_path / "pairs.jsonl"
    with pairs.open("w") as stream:
        for number in range(400):
            words = [f"w{number % 60}", f"w{number // 7}", f"w{(7 * number) % 60}"]
            stream.write(json.dumps({"anchor": " ".join(words), "positive": " ".join(reversed(words)) + " w1"}) + "\n")
    flags = ["--model", str(tmp_path / "tiny-bert"), "--pooling", "mean", "--device", "cpu", "--epochs", "1"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "acclimate", "adapt", str(pairs), "--out", str(tmp_path / "run"), *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("verdict") == 1
    assert (tmp_path / "run/report.html").exists()
    assert done.stderr.count("trainable parameters") == 1
