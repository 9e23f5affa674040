"""LoRA on an image tower, and on the text tower of its own model: chosen, and kept as PEFT's files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from acclimate.configs.images import TowerSides
from acclimate.core.linears import select_linears
from acclimate.core.lora import finished_weights
from acclimate.errors import UsageError
from acclimate.formats import peft

TEXT_PATHS = ("text_model.", "text_projection", "text_embed")
"""Where a model of images and texts has its text tower."""


@dataclass(frozen=True, eq=False)
class TowerLora:
    """Finished LoRA matrices on a tower's own model, by its module paths."""

    modules: Mapping[str, tuple[Tensor, Tensor]]
    """Module path -> (A [r, d_in], B [d_out, r]), alpha / rank folded into B."""
    rank: int
    alpha: float
    sides: TowerSides

    @classmethod
    def of(cls, model: nn.Module, rank: int, alpha: float, sides: TowerSides) -> TowerLora:
        """Take the matrices of what is attached to a model."""
        return cls(finished_weights(model), rank, alpha, sides)

    @cached_property
    def sha256(self) -> str:
        """Hash of the matrices."""
        digest = hashlib.sha256(self.sides.encode())
        for name, pair in sorted(self.modules.items()):
            digest.update(json.dumps([name, *(list(matrix.shape) for matrix in pair)]).encode())
            for matrix in pair:
                digest.update(matrix.to(torch.float32).contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def text_sha256(self) -> str | None:
        """The hash, where texts depend on the matrices."""
        return None if self.sides == "image" else self.sha256

    def save(self, folder: Path, base_id: str) -> None:
        """Write PEFT's two files into an existing folder."""
        peft.write(folder, self.modules, base_id, self.rank, self.alpha)

    @classmethod
    def load(cls, folder: Path, sides: TowerSides) -> TowerLora:
        """Read what `save` wrote.

        Raises:
            ModelError, StorageError: see `peft.read`.
        """
        read = peft.read(folder)
        return cls(read.modules, read.rank, read.alpha, sides)


def tower_layers(model: nn.Module, targets: tuple[str, ...], sides: TowerSides) -> list[str]:
    """Name the linear layers of the chosen towers that LoRA is put on, by their whole paths.

    Those inside torch's own `MultiheadAttention` (SigLIP's pooling) are left out: it reads their weights itself.

    Raises:
        UsageError: there are none.
    """
    inside = [f"{name}." for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)]
    names = [name for name in select_linears(model, targets) if not name.startswith(tuple(inside))]
    of_texts = [name for name in names if name.startswith(TEXT_PATHS)]
    chosen = {"image": [name for name in names if name not in of_texts], "texts": of_texts, "both": names}[sides]
    if not chosen:
        raise UsageError(f"--image-lora {sides}: the model has no such linear layers", possible="image, texts, both")
    return chosen
