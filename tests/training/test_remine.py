"""Negatives mined again while a model trains: with the current model, and the same after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acclimate.configs import MineConfig, RunConfig, TrainConfig
from acclimate.data.dataset import load_dataset, read_examples
from acclimate.errors import Interrupted, UsageError
from acclimate.files import hash_file
from acclimate.mining.mine import MinedBlock, mine_negatives
from acclimate.mining.mining_input import MiningInput, mining_input
from acclimate.models.encoder import Encoder
from acclimate.stages.mine import mine
from acclimate.stages.train import train
from acclimate.training import remine
from acclimate.training.metrics_log import MetricsLog
from tests.tiny_run import write_tiny_bert, write_tiny_pairs, write_tiny_retrieval

TRAIN = TrainConfig(
    batch_size=8, epochs=4, rank=4, learning_rate=0.05, dev_documents=20, checkpoint_steps=3, remine_steps=4
)
STEPS = 12
"""24 examples in batches of 8, four times: negatives are mined before steps 4 and 8."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture
def config(model: Path) -> RunConfig:
    mining = MineConfig(num_negatives=2, spread_margin=None, range_max=10)
    return RunConfig(model=str(model), pooling="mean", device="cpu", dtype="float32", train=TRAIN, mine=mining)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, list[str]]]:
    """Query -> negatives, for every time that a training mines."""
    times: list[dict[str, list[str]]] = []

    def spy(*arguments: Any, **options: Any) -> Any:
        times.append({})
        for block in mine_negatives(*arguments, **options):
            times[-1] |= {one.query: [found.document for found in one.negatives] for one in block.queries}
            yield block

    monkeypatch.setattr(remine, "mine_negatives", spy)
    return times


def prepared(run: Path, config: RunConfig) -> Path:
    write_tiny_retrieval(run / "dataset")
    mine(run / "dataset", run / "negatives", config)
    return run


def trained(run: Path, config: RunConfig) -> dict[str, Any]:
    return train(run / "dataset", run / "negatives", run / "adapter", config)


def steps_of(run: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> None:
    """Do some work, and press ctrl-C when this step's row is written."""
    write = MetricsLog.write

    def stopping(self: MetricsLog, row: Any) -> None:
        write(self, row)
        if row["step"] == step and "loss" in row:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(MetricsLog, "write", stopping)
        work()


def test_the_current_model_mines(tmp_path: Path, config: RunConfig, watched: list[dict[str, list[str]]]) -> None:
    run = prepared(tmp_path / "run", config)
    report = trained(run, config)
    assert len(watched) == 2
    assert report["train"]["remined"]["times"] == 2
    assert report["train"]["remined"]["seconds"] > 0
    assert not (run / ".work" / "adapter").exists()
    data = load_dataset(run / "dataset")
    base = negatives_by(Encoder.load(config.base_model, **config.loading), mining_input(data), config)
    assert watched[0] != base
    assert watched[1] != watched[0]
    # The base itself, through the same code, finds what `mine` found.
    rows = read_examples(run / "negatives" / "examples.jsonl")
    assert base == {row.anchor: list(row.negatives[-2:]) for row in rows}


def negatives_by(encoder: Any, source: MiningInput, config: RunConfig) -> dict[str, list[str]]:
    blocks: list[MinedBlock] = list(mine_negatives(source, encoder, config.mine, config.seed))
    return {one.query: [found.document for found in one.negatives] for block in blocks for one in block.queries}


@pytest.mark.parametrize(
    "step",
    [
        5,  # the checkpoint is step 3: the step that mined is taken again, and what it mined is found
        7,  # the checkpoint is step 6, amid the steps with the negatives mined before step 4
    ],
)
@pytest.mark.parametrize("sides", ["both", "query"])
def test_an_interrupted_training_ends_the_same(
    tmp_path: Path,
    config: RunConfig,
    watched: list[dict[str, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    sides: Any,
) -> None:
    config = replace(config, train=replace(TRAIN, sides=sides))
    quiet, stopped = prepared(tmp_path / "quiet", config), prepared(tmp_path / "stopped", config)
    trained(quiet, config)
    assert len(watched) == 2
    interrupted_at(step, monkeypatch, lambda: trained(stopped, config))
    trained(stopped, config)
    assert len(watched) == 4, "what was mined before the interruption is not mined again"
    assert watched[2:] == watched[:2]
    assert steps_of(stopped) == steps_of(quiet)
    assert [number for number, _ in steps_of(quiet)] == list(range(1, STEPS + 1))
    name = "adapter_model.safetensors"
    assert hash_file(stopped / "adapter" / name) == hash_file(quiet / "adapter" / name)


def test_negatives_are_needed(tmp_path: Path, config: RunConfig) -> None:
    write_tiny_pairs(tmp_path / "dataset")
    with pytest.raises(UsageError, match=r"no task has negatives to mine"):
        train(tmp_path / "dataset", None, tmp_path / "adapter", config)
    with pytest.raises(UsageError, match=r"group_size = 1 takes no negatives"):
        TrainConfig(remine_steps=5, group_size=1)
