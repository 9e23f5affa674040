"""What the losses have in common: precision, cosines, leading dimensions.

Legend: N rows, M candidates, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from acclimate.core.pooling import truncate_dim


def cosines(query_ND: Tensor, document_MD: Tensor) -> Tensor:
    """[N, M] cosines of unit rows, in float32 at least."""
    query_ND = at_least_float32(query_ND)
    return query_ND @ document_MD.to(query_ND.dtype).T


def row_cosines(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """[N] cosines of unit rows, row by row, in float32 at least."""
    a_ND = at_least_float32(a_ND)
    return (a_ND * b_ND.to(a_ND.dtype)).sum(dim=-1)


def at_least_float32(values: Tensor) -> Tensor:
    """The same tensor in float32, or in float64 where it is that already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def over_dims(loss_of: Callable[[Tensor], Tensor], weights: Mapping[int, float]) -> Callable[[Tensor], Tensor]:
    """The weighted sum of a loss over leading dimensions, renormalised.

    Args:
        loss_of: unit rows of any size -> scalar.
        weights: dimensions -> weight.

    Source: Kusupati et al. 2022, "Matryoshka Representation Learning", eq. 1.
    """

    def summed(vectors_ND: Tensor) -> Tensor:
        losses = [weight * loss_of(narrowed(vectors_ND, dim)) for dim, weight in weights.items()]
        return torch.stack(losses).sum()

    return summed


def narrowed(vectors_ND: Tensor, dim: int) -> Tensor:
    """The first `dim` dimensions, renormalised; the very same rows where they have no more."""
    return vectors_ND if vectors_ND.shape[-1] <= dim else truncate_dim(vectors_ND, dim)
