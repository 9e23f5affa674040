"""From one vector per row of a LoRA to the rows: the last step of generators that write whole matrices.

Rows of A and columns of B come from a linear head for each size, shared by all layers that have it. Heads fed by a
generator as usually initialised give an A some ten times as long as LoRA's, and a training that is NaN within fifty
steps; so the heads' inputs are normalised, what they give is multiplied by a small constant (Adam's step, which does
not know sizes, becomes that much smaller), A begins at LoRA's own size, and B at zero.

Shapes: T tasks, L layers, r rank, H hidden width, I and O features in and out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from acclimate.models.hypernetwork.layers import Layer, SharedAdapter, Weights

A_NORM = math.sqrt(1 / 3)
"""Length of a row of A as LoRA draws it: I numbers, uniform within 1 / sqrt(I) of 0."""


class RowHeads(nn.Module):
    """[T, L, 2 r, H] -> weights [T, R + r, ...]: the shared adapter's rank R, and r generated ranks beside it.

    Args:
        layers: which layers get weights.
        shared: the multi-task adapter, which trains too: nothing but it is there at first.
        hidden: H.
        rank: r.
        multiplier: what the heads give is multiplied by it.
        generator: draws the heads of A.
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
        self.layers, self.shared, self.rank, self.multiplier = tuple(layers), shared, rank, multiplier
        self.norm = nn.LayerNorm(hidden)
        std = A_NORM / (multiplier * math.sqrt(hidden))  # normalised inputs have the length sqrt(H)
        self.down = nn.ModuleDict(
            {str(size): _head(hidden, size, std / math.sqrt(size), generator) for size in _sizes(layers, "d_in")}
        )
        self.up = nn.ModuleDict({str(size): _head(hidden, size, 0.0, generator) for size in _sizes(layers, "d_out")})

    def forward(self, rows_TLRH: Tensor) -> Weights:
        rows_TLRH = self.norm(rows_TLRH)
        weights = {}
        for number, (name, (A_TRI, B_TOR)) in enumerate(self.shared(len(rows_TLRH)).items()):
            layer, r = self.layers[number], self.rank
            A_TrI = self.multiplier * self.down[str(layer.d_in)](rows_TLRH[:, number, :r])
            B_TOr = self.multiplier * self.up[str(layer.d_out)](rows_TLRH[:, number, r:]).mT
            weights[name] = torch.cat([A_TRI, A_TrI], 1), torch.cat([B_TOR, B_TOr], 2)
        return weights


def _sizes(layers: Sequence[Layer], side: Literal["d_in", "d_out"]) -> list[int]:
    return sorted({getattr(layer, side) for layer in layers})


def _head(hidden: int, size: int, std: float, generator: torch.Generator | None) -> nn.Linear:
    head = nn.Linear(hidden, size)
    nn.init.normal_(head.weight, std=std, generator=generator)
    nn.init.zeros_(head.bias)
    return head
