"""Drag-and-Drop: a convolutional decoder unfolds the condition into the whole grid of LoRA rows at once.

The condition becomes a few slots of channels. Three hyper-convolutional blocks turn these into a grid of layers x rows
x channels; a block convolves along its channels (width), its rows (height) and its layers (length), one after the
other, each seeing a plane of the grid as an image.

Source: Liang et al. 2025, "Drag-and-Drop LLMs: Zero-Shot Prompt-to-Weights". Deviations: the prompts (description,
pairs, texts) are pooled without order by `condition_net` before they are decoded, where the paper concatenates a batch
of them; what is generated stands beside the multi-task adapter and starts at zero; it is trained through the loss of
the task, the paper's decoder on trained adapters' weights; the decoded grid modulates a learned one, so that rows are
different before anything is learned; sizes are kept as in `row_heads`.

Shapes: T tasks, C width of the condition, n length, h height, w width of a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.models.hypernetwork.layers import Layer, SharedAdapter, Weights
from acclimate.models.hypernetwork.row_heads import RowHeads

MULTIPLIER = 1 / 16
KERNEL = 3


class Grid(NamedTuple):
    """Length (layers), height (rows) and width (channels)."""

    n: int
    h: int
    w: int


class HyperConvolution(nn.Module):
    """A grid [T, n, h, w] -> a larger one, along its width, its height and its length, with a linear way past each."""

    def __init__(self, before: Grid, after: Grid) -> None:
        super().__init__()
        self.width = nn.Conv1d(before.w, after.w, KERNEL, padding=KERNEL // 2)
        self.past_width = nn.Identity() if before.w == after.w else nn.Linear(before.w, after.w)
        self.height = nn.Conv2d(before.h, after.h, KERNEL, padding=KERNEL // 2)
        self.past_height = nn.Conv2d(before.h, after.h, 1)
        self.length = nn.Conv2d(before.n, after.n, KERNEL, padding=KERNEL // 2)
        self.past_length = nn.Conv2d(before.n, after.n, 1)
        self.norm = nn.LayerNorm(after.w)

    def forward(self, grid_Tnhw: Tensor) -> Tensor:
        along = self.width(grid_Tnhw.flatten(0, 1).mT).mT.unflatten(0, grid_Tnhw.shape[:2])
        wide = F.gelu(along + self.past_width(grid_Tnhw)).transpose(1, 2)
        high = F.gelu(self.height(wide) + self.past_height(wide)).transpose(1, 2)
        long: Tensor = self.norm(self.length(high) + self.past_length(high))
        return long


class DragAndDrop(nn.Module):
    """[T, C] -> weights.

    Args:
        layers: which layers get weights.
        shared: the multi-task adapter; copied, and trained with the generator.
        width: C.
        rank: generated ranks beside the multi-task adapter's own.
        slots: length of the first grid.
        channels: w of all grids.
        generator: draws the heads.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shared: Mapping[str, tuple[Tensor, Tensor]],
        width: int,
        *,
        rank: int = 8,
        slots: int = 8,
        channels: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        grids = [
            Grid(slots, 1, channels),
            Grid(slots, 4, channels),
            Grid(len(layers), 2 * rank, channels),
            Grid(len(layers), 2 * rank, channels),
        ]
        self.first = grids[0]
        self.slots = nn.Linear(width, slots * channels)
        self.blocks = nn.ModuleList(HyperConvolution(before, after) for before, after in pairwise(grids))
        self.place = nn.Parameter(torch.randn(*grids[-1], generator=generator))
        self.heads = RowHeads(layers, SharedAdapter(layers, shared), channels, rank, MULTIPLIER, generator)

    def forward(self, condition_TC: Tensor) -> Weights:
        grid = self.slots(condition_TC).view(-1, *self.first)
        for block in self.blocks:
            grid = block(grid)
        weights: Weights = self.heads(self.place * (1 + grid))
        return weights
