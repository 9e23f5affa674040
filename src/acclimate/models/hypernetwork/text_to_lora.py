"""Text-to-LoRA: one network writes every row of every layer's matrices, told which one it is to write.

Learned embeddings of the layer's number, of its kind, and of the row of A or column of B go through a residual MLP. The
condition multiplies what comes out, and a head for each size makes the row of it.

Source: Charakorn et al. 2025, "Text-to-LoRA: Instant Transformer Adaption", its smallest architecture (S: one row at a
time). Deviations: the condition is not only a description; what is generated stands beside the multi-task adapter,
where training starts exactly; sizes are kept as in `row_heads`; and the condition multiplies, where the paper puts it
beside the embeddings. Which row does what in which task is a product, which an MLP would first have to learn; and the
MLP runs once for all tasks.

Shapes: T tasks, C width of the condition, L layers, r rank, R = 2 r rows, E width of an embedding,
H hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from acclimate.models.hypernetwork.layers import Layer, SharedAdapter, Weights
from acclimate.models.hypernetwork.row_heads import RowHeads, zero_linear

MULTIPLIER = 1 / 64
BLOCKS = 2


class TextToLora(nn.Module):
    """[T, C] -> weights.

    Args:
        layers: which layers get weights.
        shared: the multi-task adapter; copied, and trained with the generator.
        width: C.
        rank: generated ranks beside the multi-task adapter's own.
        embedding: E.
        hidden: H.
        generator: draws the heads.
    """

    number_L: Tensor
    kind_L: Tensor

    def __init__(
        self,
        layers: Sequence[Layer],
        shared: Mapping[str, tuple[Tensor, Tensor]],
        width: int,
        *,
        rank: int = 8,
        embedding: int = 32,
        hidden: int = 256,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        numbers = list(dict.fromkeys(layer.number for layer in layers))
        kinds = list(dict.fromkeys(layer.kind for layer in layers))
        self.register_buffer("number_L", torch.tensor([numbers.index(layer.number) for layer in layers]))
        self.register_buffer("kind_L", torch.tensor([kinds.index(layer.kind) for layer in layers]))
        self.number = nn.Embedding(len(numbers), embedding)
        self.kind = nn.Embedding(len(kinds), embedding)
        self.row = nn.Embedding(2 * rank, embedding)
        self.enter = nn.Linear(3 * embedding, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU(), zero_linear(2 * hidden, hidden)
            )
            for _ in range(BLOCKS)
        )
        self.place = nn.LayerNorm(hidden)
        self.modulate = nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden))
        self.heads = RowHeads(layers, SharedAdapter(layers, shared), hidden, rank, MULTIPLIER, generator)

    def forward(self, condition_TC: Tensor) -> Weights:
        L, rows = len(self.number_L), self.row.num_embeddings
        layer_L1E = torch.cat([self.number(self.number_L), self.kind(self.kind_L)], -1)[:, None]
        place_LRE = torch.cat([layer_L1E.expand(L, rows, -1), self.row.weight.expand(L, rows, -1)], -1)
        place_LRH = self.enter(place_LRE)
        for block in self.blocks:
            place_LRH = place_LRH + block(place_LRH)
        condition_TH = self.modulate(condition_TC)
        weights: Weights = self.heads(self.place(place_LRH)[None] * condition_TH[:, None, None])
        return weights
