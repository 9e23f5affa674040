"""`hypernetwork train` towards adapters of each task: alone, as a warm-up, and where that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.configs import RunConfig
from acclimate.configs.hypernetwork import NetworkConfig, Objective
from acclimate.data.task_library import read_library
from acclimate.errors import UsageError
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionVectors, batch_of
from acclimate.models.hypernetwork.saving import load_network
from acclimate.stages.hypernetwork_tasks import hypernetwork_tasks
from acclimate.stages.hypernetwork_train import hypernetwork_train
from acclimate.training import own_adapters
from acclimate.training.hypernetwork import reconstruction_loss
from acclimate.training.network_training import Adapted
from tests.data.test_definitions import write_corpus
from tests.models.adapted import write_model

SMALL = NetworkConfig(
    generator="text-to-lora", steps=40, shared_steps=5, shared_rank=4, own_rank=4, unknown_share=0.0, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    folder = tmp_path_factory.mktemp("objectives")
    config = RunConfig(model=str(write_model(folder / "base", "bert")), device="cpu", dtype="float32")
    hypernetwork_tasks([str(write_corpus(folder, "bank", 300))], folder / "tasks", config)
    return folder, config


def test_what_is_generated_comes_near_each_tasks_own_adapter(
    world: tuple[Path, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone it ends nearest to them, as a warm-up the training goes on from there, without it nobody looks at them."""
    folder, config = world
    own: list[Adapted] = []
    train, one = own_adapters.OwnAdapters.train, own_adapters.OwnAdapters.one

    def kept(*arguments: Any) -> list[Adapted]:
        own[:] = own or train(*arguments)  # they are the same each time
        return own

    monkeypatch.setattr(own_adapters.OwnAdapters, "train", kept)
    monkeypatch.setattr(own_adapters.OwnAdapters, "one", lambda *arguments: one(*arguments, steps=15))
    objectives: tuple[Objective, ...] = ("reconstruction", "warm-up", "relevance")
    for objective in objectives:
        hypernetwork_train(folder / "tasks", folder / objective, replace(SMALL, objective=objective), config)
        assert (folder / objective / "metrics.jsonl").stat().st_size > 0
        assert (folder / objective / "warm-up-metrics.jsonl").exists() == (objective == "warm-up")
        assert f"| objective | {objective} |" in (folder / objective / "README.md").read_text()

    library = read_library(folder / "tasks")
    tasks = library.only(library.numbers("train")).train.tasks
    assert len(own) == len(tasks)
    encoder = Encoder.load(config.base_model, **config.loading)
    described = [encoder.encode([task.descriptions[0]], "query")[0] for task in tasks]
    batch = batch_of([ConditionVectors(description_D=vector_D) for vector_D in described], encoder.use.dim)
    networks = {objective: load_network(folder / objective).network for objective in objectives}
    with torch.inference_mode():
        far = {name: float(reconstruction_loss(network(batch), own)) for name, network in networks.items()}
    assert far["reconstruction"] < far["warm-up"] and far["reconstruction"] < far["relevance"]
    ends = [network.state_dict() for network in networks.values()]
    assert all(not np.array_equal(ends[0][name], end[name]) for end in ends[1:] for name in end if "head" in name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"through": "encoder"}, "objective = warm-up through the encoder"),
        ({"generator": "multi-task"}, "objective = warm-up of multi-task, which generates nothing"),
    ],
)
def test_where_it_cannot_be(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NetworkConfig(objective="warm-up", **settings)  # type: ignore[arg-type]
