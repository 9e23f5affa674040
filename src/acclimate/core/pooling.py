"""Hidden states of packed texts -> one vector per text. No padding, so no mask: the lengths say it all.

`pool_padded` is the same for a padded batch, for the graphs that other engines run.

Shapes: N texts, T packed tokens (the sum of the lengths), L tokens of the longest text, D dimensions.
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


def pool_padded(hidden_NLD: Tensor, mask_NL: Tensor, pooling: Pooling) -> Tensor:
    """One vector per text of a padded batch, not normalised; only operations that every exporter knows.

    Args:
        hidden_NLD: last hidden states.
        mask_NL: 1 where a token is, 0 where padding is; each text has a token.
        pooling: mean over the tokens, the first (cls) or the last token.

    Returns:
        Tensor [N, D] of the same dtype.
    """
    if pooling == "mean":
        weight_NL1 = mask_NL.unsqueeze(-1).to(hidden_NLD.dtype)
        return (hidden_NLD * weight_NL1).sum(1) / weight_NL1.sum(1)
    if pooling == "cls":
        return hidden_NLD[:, 0]
    place_NL = torch.arange(mask_NL.shape[1], device=mask_NL.device) * mask_NL
    last_N11 = place_NL.argmax(1)[:, None, None].expand(-1, 1, hidden_NLD.shape[-1])
    return hidden_NLD.gather(1, last_N11).squeeze(1)


def unit(vectors_ND: Tensor) -> Tensor:
    """Rows of length 1; a zero row stays zero."""
    return F.normalize(vectors_ND, dim=-1)


def truncate_dim(vectors_ND: Tensor, dim: int) -> Tensor:
    """The first `dim` dimensions, renormalised (Matryoshka representation learning, arXiv:2205.13147)."""
    return unit(vectors_ND[..., :dim])
