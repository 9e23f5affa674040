"""From one vector per row of a LoRA to the rows: the last step of generators that write whole matrices.

Rows of A and columns of B come from a linear head for each size, shared by all layers that have it. Heads fed by a
generator as usually initialised give an A some ten times as long as LoRA's, and a training that is NaN within fifty
steps; so the heads' inputs are normalised, and what they give is multiplied by a small constant: Adam's step, which
does not know sizes, becomes that much smaller. A row of A is what a head gives added to a learned row, at first one of
the multi-task adapter's own: of LoRA's size, and along what the tasks have been found to differ in. B begins at zero.

Shapes: T tasks, L layers, R rank of the shared adapter, r generated rank, H hidden width, I and O features in and out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from acclimate.models.hypernetwork.layers import Layer, SharedAdapter, Weights, new_adapter

USUAL_LAYERS = 36
"""Linear layers of a small model, MiniLM's."""


class RowHeads(nn.Module):
    """[T, L, 2 r, H] -> weights [T, R + r, ...]: the shared adapter's ranks, and r generated ones beside them.

    Args:
        layers: which layers get weights.
        shared: the multi-task adapter, which trains too: nothing but it is there at first.
        hidden: H.
        rank: r.
        multiplier: what the heads give is multiplied by it, for 36 layers; by more for fewer, whose changes add up to
            less.
        generator: draws rows of A where r is above R.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shared: SharedAdapter,
        hidden: int,
        rank: int,
        multiplier: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.shared, self.rank = tuple(layers), shared, rank
        self.multiplier = multiplier * math.sqrt(USUAL_LAYERS / len(layers))
        self.norm = nn.LayerNorm(hidden)
        self.start = nn.ParameterList(
            _first_rows(A_RI.detach(), layer, rank, generator) for layer, A_RI in zip(layers, shared.A, strict=True)
        )
        self.down = nn.ModuleDict({str(size): zero_linear(hidden, size) for size in _sizes(layers, "d_in")})
        self.up = nn.ModuleDict({str(size): zero_linear(hidden, size) for size in _sizes(layers, "d_out")})

    def forward(self, rows_TLH: Tensor) -> Weights:
        rows_TLH = self.norm(rows_TLH)
        weights = {}
        for number, (name, (A_TRI, B_TOR)) in enumerate(self.shared(len(rows_TLH)).items()):
            layer, r = self.layers[number], self.rank
            A_TrI = self.start[number] + self.multiplier * self.down[str(layer.d_in)](rows_TLH[:, number, :r])
            B_TOr = self.multiplier * self.up[str(layer.d_out)](rows_TLH[:, number, r:]).mT
            weights[name] = torch.cat([A_TRI, A_TrI], 1), torch.cat([B_TOR, B_TOr], 2)
        return weights


def _sizes(layers: Sequence[Layer], side: Literal["d_in", "d_out"]) -> list[int]:
    return sorted({getattr(layer, side) for layer in layers})


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that gives 0 until it is trained."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _first_rows(A_RI: Tensor, layer: Layer, rank: int, generator: torch.Generator | None) -> Tensor:
    """The shared adapter's first rows, and drawn ones where more are needed."""
    more = max(0, rank - len(A_RI))
    if not more:
        return A_RI[:rank].clone()
    drawn, _ = new_adapter([layer], more, generator or torch.default_generator)[layer.name]
    return torch.cat([A_RI, drawn])
