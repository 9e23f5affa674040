"""Core modulation: the multi-task adapter's A and B, and between them a small generated matrix.

The update of task t is B (C_0 + C(z_t)) A with A and B shared; only the r x r core C is generated. C_0 is the identity
on the multi-task adapter's own directions and 0 on some further ones that it does not use, so that the start is exactly
the multi-task adapter and a task can still turn what that one leaves alone.

Shapes: T tasks, C width of the condition, r rank, L layers, I and O features in and out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from acclimate.models.hypernetwork.layers import Layer, SharedAdapter, Weights

SPARE_B = 0.3
"""Size of the further directions' columns of B, times 1 / sqrt(O): they do nothing until a core lets them."""


class CoreModulation(nn.Module):
    """[T, C] -> weights. A and B train with the generator.

    Args:
        layers: which layers get weights.
        shared: the multi-task adapter.
        width: C.
        spare: further directions beside the multi-task adapter's rank.
        generator: draws these.
    """

    core_rr: Tensor

    def __init__(
        self,
        layers: Sequence[Layer],
        shared: Mapping[str, tuple[Tensor, Tensor]],
        width: int,
        *,
        spare: int = 8,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        wider = {}
        for layer in layers:
            A_rI, B_Or = shared[layer.name]
            A_sI = torch.randn(spare, layer.d_in, generator=generator) / math.sqrt(layer.d_in)
            B_Os = torch.randn(layer.d_out, spare, generator=generator) * SPARE_B / math.sqrt(layer.d_out)
            wider[layer.name] = torch.cat([A_rI.detach(), A_sI]), torch.cat([B_Or.detach(), B_Os], 1)
        self.shared = SharedAdapter(layers, wider)
        self.rank = self.shared.rank
        self.head = nn.Linear(width, len(layers) * self.rank**2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        own = torch.arange(self.rank) < self.rank - spare
        self.register_buffer("core_rr", torch.diag(own.to(torch.float32)))

    def forward(self, condition_TC: Tensor) -> Weights:
        T = len(condition_TC)
        core_TLrr = self.core_rr + self.head(condition_TC).view(T, -1, self.rank, self.rank)
        return {
            name: (A_rI.expand(T, -1, -1), B_Or @ core_TLrr[:, number])
            for number, (name, (A_rI, B_Or)) in enumerate(self.shared.weights().items())
        }
