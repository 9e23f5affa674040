"""The two losses of embedding training, on unit vectors.

Legend: N queries (rows of the batch), M candidate documents, D vector size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    query_ND: Tensor, document_MD: Tensor, target_N: Tensor, mask_NM: Tensor | None, temperature: float
) -> Tensor:
    """Cross-entropy of finding each query's document among the batch's candidates, over cosine / temperature.

    Computed in float32 at least, whatever the vectors' dtype: at temperature 0.05 a bf16 cosine is off by 0.08 logits.

    Args:
        query_ND: unit rows, one per training row (a query of two rows stands here twice).
        document_MD: unit rows, every candidate once.
        target_N: index of each row's positive among the candidates (int64).
        mask_NM: True where a candidate is no negative for that row (see `core.negatives`); the target is never masked.
        temperature: cosines are divided by it.

    Returns:
        A scalar, the mean over the rows.

    Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", eq. 4.
    """
    logits_NM = cosines(query_ND, document_MD) / temperature
    if mask_NM is not None:
        is_target_NM = torch.zeros_like(mask_NM).scatter_(1, target_N[:, None], True)
        logits_NM = logits_NM.masked_fill(mask_NM & ~is_target_NM, -torch.inf)
    return F.cross_entropy(logits_NM, target_N)


def cosine_mse(a_ND: Tensor, b_ND: Tensor, score_N: Tensor) -> Tensor:
    """Mean squared difference between the cosine of two unit rows and their similarity score in [0, 1].

    Source: Reimers & Gurevych 2019, "Sentence-BERT", regression objective.
    """
    a_ND, b_ND = at_least_float32(a_ND), at_least_float32(b_ND)
    return F.mse_loss((a_ND * b_ND).sum(dim=-1), score_N.to(a_ND.dtype))


def cosines(query_ND: Tensor, document_MD: Tensor) -> Tensor:
    """[N, M] cosines of unit rows, in float32 at least."""
    query_ND = at_least_float32(query_ND)
    return query_ND @ document_MD.to(query_ND.dtype).T


def at_least_float32(values: Tensor) -> Tensor:
    """The same tensor in float32, or in float64 where it is that already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
