"""The law of chunking: whatever is kept and whatever is computed again, the gradient is that of one big batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertModel, Qwen3Config

from acclimate.core.lora import attach, generated_as_leaves, lora_layers, trainable_parameters
from acclimate.core.losses import info_nce
from acclimate.training.gradcache import activation_bytes_per_token, chunked_backward, kept_chunks

COUNT, SIZE = 7, 5


class Toy(nn.Module):
    """Linear layers with LoRA (and its dropout) in between, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleDict({"first": nn.Linear(SIZE, 6).double(), "second": nn.Linear(6, SIZE).double()})
        self.requires_grad_(False)
        layers = attach(self, ["all-linear"], rank=2, dropout=0.3, generator=torch.Generator().manual_seed(1))
        for layer in layers.values():
            layer.double()
            nn.init.normal_(layer.B, generator=torch.Generator().manual_seed(2))
        self.inputs = torch.randn(COUNT, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def forward(self, rows: np.ndarray) -> Tensor:
        hidden = torch.tanh(self.layers["first"](self.inputs[torch.from_numpy(rows)]))
        return F.normalize(self.layers["second"](hidden), dim=-1)


def loss_of(vectors: Tensor) -> Tensor:
    """Queries 0-2, documents 3-6: every vector's gradient depends on all others."""
    return info_nce(vectors[:3], vectors[3:], torch.tensor([0, 1, 3]), None, 0.1)


def gradients(model: Toy) -> dict[str, Tensor]:
    found = {}
    for name, parameter in trainable_parameters(model).items():
        assert parameter.grad is not None
        found[name] = parameter.grad.clone()
        parameter.grad = None
    return found


def blank() -> Tensor:
    return torch.zeros(COUNT, SIZE, dtype=torch.float64)


def keep(count: int, chunks: list[np.ndarray]) -> dict[str, Any]:
    """Sizes and memory with which `count` of the chunks keep their graph."""
    return {"tokens": [1] * len(chunks), "max_tokens": float(count + 1)}


@settings(deadline=None, max_examples=40)
@given(
    order=st.permutations(range(COUNT)),
    borders=st.sets(st.integers(1, COUNT - 1)),
    kept=st.integers(0, COUNT),
    seed=st.integers(0, 10),
)
def test_chunked_gradient_is_the_full_gradient(order: list[int], borders: set[int], kept: int, seed: int) -> None:
    model = Toy()
    chunks = np.split(np.array(order), sorted(borders))
    full = torch.empty(COUNT, SIZE, dtype=torch.float64)
    parts = []
    for number, chunk in enumerate(chunks):
        torch.manual_seed(seed + number)
        parts.append(model(chunk))
    full = torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(chunks)))]
    expected_loss = loss_of(full)
    expected_loss.backward()
    expected = gradients(model)

    loss = chunked_backward(model, chunks, loss_of, blank(), **keep(kept, chunks), seed_of=lambda number: seed + number)
    assert loss == expected_loss.item()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-12, atol=1e-14)


class Hypernetwork(nn.Module):
    """A and B of all layers out of one vector: they share one graph."""

    def __init__(self, model: Toy) -> None:
        super().__init__()
        self.layers = lora_layers(model)
        sizes = [matrix.numel() for layer in self.layers.values() for matrix in (layer.A, layer.B)]
        self.sizes, self.description = sizes, torch.randn(3, dtype=torch.float64)
        self.maker = nn.Linear(3, sum(sizes)).double()

    def generate(self) -> None:
        parts = iter(torch.split(torch.tanh(self.maker(self.description)), self.sizes))
        for layer in self.layers.values():
            layer.set_weights(next(parts).view(layer.A.shape), next(parts).view(layer.B.shape))


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_generated_matrices_get_the_full_gradient_through_many_chunks(kept: int) -> None:
    """The first chunk's backward pass freed the graph which the other chunks' matrices share."""
    model = Toy()
    hypernetwork, order = Hypernetwork(model), np.arange(COUNT)
    chunks = np.split(order, [2, 5])
    hypernetwork.generate()
    parts = []
    for number, chunk in enumerate(chunks):
        torch.manual_seed(number)
        parts.append(model(chunk))
    loss_of(torch.cat(parts)).backward()
    expected = [parameter.grad.clone() for parameter in hypernetwork.parameters()]
    hypernetwork.zero_grad()

    hypernetwork.generate()
    with generated_as_leaves(model):
        chunked_backward(model, chunks, loss_of, blank(), **keep(kept, chunks), seed_of=int)
    for parameter, gradient in zip(hypernetwork.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)
    assert all(layer.A.grad_fn is not None for layer in hypernetwork.layers.values())  # put back as they were


def test_dropout_matters_in_these_tests() -> None:
    model, chunks = Toy(), [np.arange(COUNT)]
    losses = {
        chunked_backward(model, chunks, loss_of, blank(), **keep(1, chunks), seed_of=lambda _, s=s: s) for s in range(3)
    }
    assert len(losses) == 3


def test_a_loss_that_is_not_finite_leaves_no_gradient() -> None:
    model = Toy()
    loss = chunked_backward(
        model, [np.arange(COUNT)], lambda v: v.sum() * torch.inf, blank(), tokens=[1], max_tokens=0, seed_of=int
    )
    assert not np.isfinite(loss)
    assert all(parameter.grad is None for parameter in trainable_parameters(model).values())


def test_kept_chunks_by_hand() -> None:
    assert kept_chunks([10, 10, 10], 30) == 3
    assert kept_chunks([10, 10, 10], 29) == 1  # one kept and one being computed again: 20; a second kept would be 30
    assert kept_chunks([10, 10, 10], 19) == 0
    assert kept_chunks([5, 10, 20], 34) == 1  # the largest has to fit beside what is kept


@pytest.mark.parametrize("layers", [2, 4])
def test_the_memory_estimate_covers_what_autograd_saves(layers: int) -> None:
    config = BertConfig(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertModel(config, add_pooling_layer=False)
    model.requires_grad_(False)
    attach(model, ["all-linear"], rank=4)
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.zeros(4, 32, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = model(input_ids=ids).last_hidden_state
    measured = sum(storages.values()) / ids.numel()
    estimated = activation_bytes_per_token(config, 4, checkpointing=False)
    assert measured <= estimated <= 2 * measured, (measured, estimated)
    assert output.requires_grad


def test_checkpointing_needs_less_memory() -> None:
    config = Qwen3Config(num_hidden_layers=28, hidden_size=1024, intermediate_size=3072)
    assert activation_bytes_per_token(config, 2, True) * 10 < activation_bytes_per_token(config, 2, False)
