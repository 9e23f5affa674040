"""QueryMap: a low-rank map on a model's query vectors. The model, its documents and their index stay as they are.

Shapes: N queries, r rank, D vector size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core.pooling import unit
from acclimate.text_use import TextUse


@dataclass(frozen=True, eq=False)
class QueryMap:
    """v -> v + B A v, renormalised: a LoRA on an identity layer behind the pooling."""

    base_id: str
    """Canonical id of the base model."""
    base_sha256: str
    """Hash of the base's weights."""
    A_rD: Tensor
    B_Dr: Tensor
    use: TextUse
    """How the base's texts become vectors: it maps vectors of this use only."""
    normalise: bool
    """Whether the base's own files normalise its vectors."""

    def __call__(self, query_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map unit rows to unit rows."""
        vectors_ND = torch.from_numpy(query_ND)
        mapped: NDArray[np.float32] = unit(vectors_ND + vectors_ND @ self.A_rD.T @ self.B_Dr.T).numpy()
        return mapped
