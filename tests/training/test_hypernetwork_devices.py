"""A hypernetwork computes where its parameters are: nothing that it makes on the way is left on another device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.configs.hypernetwork import GeneratorName, NetworkConfig, Through
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionVectors, batch_of
from acclimate.models.hypernetwork.layers import layers_of, query_vector_layers
from acclimate.models.hypernetwork.network import Architecture, Network
from acclimate.training.network_training import NetworkTraining
from acclimate.training.task_draws import encode_library
from tests.models.adapted import write_model
from tests.training.test_hypernetwork import tiny_library

GENERATED: tuple[GeneratorName, ...] = ("core-modulation", "text-to-lora", "drag-and-drop")


@pytest.mark.parametrize("generator", GENERATED)
def test_weights_are_where_the_network_is(generator: GeneratorName, tmp_path: Path) -> None:
    """The meta device refuses to compute with tensors of another one, as a GPU does."""
    sizes = Architecture(generator=generator, dim=32, width=16, directions=8, shared_rank=4, own_rank=2)
    encoder = Encoder.load(str(write_model(tmp_path / "base", "bert")), device="cpu", dtype="float32")
    rows_PD = np.ones((3, 32), np.float32)
    full = ConditionVectors(description_D=rows_PD[0], query_PD=rows_PD, document_PD=rows_PD, text_SD=rows_PD)
    conditions = batch_of([full, ConditionVectors(description_D=rows_PD[0])], 32)
    for layers in (query_vector_layers(32), layers_of(encoder.model)):
        weights = Network(sizes, layers).to("meta")(conditions.to("meta"))
        assert {matrix.device.type for pair in weights.values() for matrix in pair} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("through", ["query-vector", "encoder"])
def test_training_on_cuda_is_that_of_the_cpu(through: Through, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "base", "bert")
    last = 1 if through == "encoder" else 0
    config = NetworkConfig(through=through, last_blocks=last, shared_steps=2, steps=3, shared_rank=4, own_rank=2)
    found = {}
    for device in ("cpu", "cuda"):
        encoder = Encoder.load(str(folder), device=device, dtype="float32")
        library = tiny_library()
        training = NetworkTraining(
            encoder=encoder,
            library=library,
            vectors=encode_library(encoder, library),
            config=config,
            seed=0,
            folder=tmp_path / device,
        )
        shared = training.shared()
        assert {matrix.device.type for pair in shared.values() for matrix in pair} == {"cpu"}
        found[device] = training.generator(shared).state_dict()
    for name, tensor in found["cuda"].items():
        assert tensor.device.type == "cpu"
        assert torch.allclose(tensor, found["cpu"][name], atol=1e-2), name
