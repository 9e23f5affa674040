"""Hidden states of packed texts -> one vector per text. No padding, so no mask: the lengths say it all.

Shapes: N texts, T packed tokens (the sum of the lengths), D dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.types import Pooling


def pool_packed(hidden_TD: Tensor, lengths_N: Tensor, pooling: Pooling) -> Tensor:
    """One vector per text, in float32, not normalised.

    Args:
        hidden_TD: last hidden states of the texts one after the other; any float dtype.
        lengths_N: tokens per text (int64, same device), each at least 1, their sum is T.
        pooling: mean over the tokens, the first (cls) or the last token.

    Returns:
        Tensor [N, D] float32.
    """
    if pooling == "mean":
        # segment_reduce is deterministic on every device; index_add is not on CUDA, and slower on a CPU.
        return torch.segment_reduce(hidden_TD.float(), "mean", lengths=lengths_N, axis=0, unsafe=True)
    ends_N = lengths_N.cumsum(0)
    return hidden_TD[ends_N - lengths_N if pooling == "cls" else ends_N - 1].float()


def unit(vectors_ND: Tensor) -> Tensor:
    """Rows of length 1; a zero row stays zero."""
    return F.normalize(vectors_ND, dim=-1)


def truncate_dim(vectors_ND: Tensor, dim: int) -> Tensor:
    """The first `dim` dimensions, renormalised (Matryoshka representation learning, arXiv:2205.13147)."""
    return unit(vectors_ND[..., :dim])
