"""The layers that adapters are generated for, and generated weights.

Shapes: T tasks, r rank, I and O features in and out of a layer, D vector size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from acclimate.core.blocks import named_blocks
from acclimate.core.linears import features, select_linears
from acclimate.core.pooling import unit
from acclimate.errors import UsageError

Weights: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""Layer -> (A [T, r, I], B [T, O, r]), nothing left to multiply by: the update of task t is B_t A_t."""

QUERY_VECTOR = "query_vector"
"""Name of the one layer of a query-vector map: an identity behind pooling and normalisation."""


class Layer(NamedTuple):
    """A linear layer that gets generated weights."""

    name: str
    """Its path in the model."""
    number: int
    """Which of the model's equal blocks it is in."""
    kind: str
    """Its place in the block: layers of one kind have one shape."""
    d_in: int
    d_out: int


def layers_of(model: nn.Module, targets: Sequence[str] = ("all-linear",), last_blocks: int = 0) -> tuple[Layer, ...]:
    """List the linear layers of a model that targets name, in the model's order.

    Args:
        model: a transformer.
        targets: as for LoRA.
        last_blocks: how many of its last blocks count; 0: every layer does.

    Raises:
        UsageError: a target matches none; the model has fewer blocks.
    """
    found = select_linears(model, targets)
    if last_blocks:
        blocks = [f"{path}." for path in named_blocks(model)]
        if last_blocks > len(blocks):
            raise UsageError(f"last_blocks = {last_blocks}", possible=f"1 to {len(blocks)}, the blocks of this model")
        found = {name: module for name, module in found.items() if name.startswith(tuple(blocks[-last_blocks:]))}
    return tuple(Layer(name, *_place(name), *features(module)) for name, module in found.items())


def query_vector_layers(dim: int) -> tuple[Layer, ...]:
    """The one layer of a query-vector map over vectors of `dim` numbers."""
    return (Layer(QUERY_VECTOR, 0, QUERY_VECTOR, dim, dim),)


def mapped(vectors_TND: Tensor, weights: Weights) -> Tensor:
    """Send unit vectors [T, N, D] through each task's query-vector map: v + B A v, renormalised."""
    A_TrD, B_TDr = weights[QUERY_VECTOR]
    return unit(vectors_TND + vectors_TND @ A_TrD.mT @ B_TDr.mT)


class SharedAdapter(nn.Module):
    """One adapter for all tasks: what a multi-task training finds, and where every generator starts.

    Args:
        layers: in the order of all other tensors over layers.
        weights: layer -> (A [r, I], B [O, r]); copied.
    """

    def __init__(self, layers: Sequence[Layer], weights: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.names = [layer.name for layer in layers]
        pairs = [weights[name] for name in self.names]
        self.A = nn.ParameterList(A_rI.detach().clone() for A_rI, _ in pairs)
        self.B = nn.ParameterList(B_Or.detach().clone() for _, B_Or in pairs)

    @property
    def rank(self) -> int:
        return int(self.A[0].shape[0])

    def weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer -> (A [r, I], B [O, r]): the parameters themselves."""
        return {name: (A_rI, B_Or) for name, A_rI, B_Or in zip(self.names, self.A, self.B, strict=True)}

    def forward(self, tasks: int) -> Weights:
        return {
            name: (A_rI.expand(tasks, -1, -1), B_Or.expand(tasks, -1, -1))
            for name, (A_rI, B_Or) in self.weights().items()
        }


def new_adapter(layers: Sequence[Layer], rank: int, generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """Draw an adapter that changes nothing yet, as `core.lora.attach` does: A [r, I] uniform, B [O, r] zero."""
    return {
        layer.name: (
            torch.empty(rank, layer.d_in).uniform_(-1, 1, generator=generator) / math.sqrt(layer.d_in),
            torch.zeros(layer.d_out, rank),
        )
        for layer in layers
    }


def of_task(weights: Weights, task: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer -> (A [r, I], B [O, r]) of one task."""
    return {name: (A_TrI[task], B_TOr[task]) for name, (A_TrI, B_TOr) in weights.items()}


def as_weights(modules: Mapping[str, tuple[Tensor, Tensor]]) -> Weights:
    """Take one adapter, layer -> (A [r, I], B [O, r]), as the weights of one task."""
    return {name: (A_rI[None], B_Or[None]) for name, (A_rI, B_Or) in modules.items()}


def _place(name: str) -> tuple[int, str]:
    """The block's number in a module's path, and the path without it."""
    parts = name.split(".")
    place = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    if place is None:
        return 0, name
    return int(parts[place]), ".".join(parts[:place] + parts[place + 1 :])
