"""InfoNCE: each row's positive has to be found among candidates, by a softmax over cosine / temperature.

Legend: N rows of the batch, U distinct queries, M distinct documents (the candidates), D vector size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core.losses.vectors import cosines
from acclimate.types import Block

Partition: TypeAlias = Literal["per-direction", "joint"]


def info_nce(
    query_ND: Tensor,
    document_MD: Tensor,
    target_N: Tensor,
    mask_NM: Tensor | None,
    temperature: float | Tensor,
) -> Tensor:
    """Cross-entropy of finding each query's document among the batch's candidates, over cosine / temperature.

    Computed in float32 at least, whatever the vectors' dtype: at temperature 0.05 a bf16 cosine is off by 0.08 logits.

    Args:
        query_ND: unit rows, one per training row (a query of two rows stands here twice).
        document_MD: unit rows, every candidate once.
        target_N: index of each row's positive among the candidates (int64).
        mask_NM: True where a candidate is no negative for that row (see `core.negatives`); the target is never masked.
        temperature: cosines are divided by it; one for all rows, or [N].

    Returns:
        A scalar, the mean over the rows.

    Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", eq. 4.
    """
    logits_NM = cosines(query_ND, document_MD) / by_row(temperature)
    return F.cross_entropy(_without(logits_NM, mask_NM, target_N), target_N)


def info_nce_blocks(
    cosine: Mapping[Block, Tensor],
    excluded: Mapping[Block, Tensor],
    anchor_N: Tensor,
    target_N: Tensor,
    positive_N: Tensor,
    temperature: float | Tensor,
    *,
    partition: Partition = "per-direction",
    hardness_strength: float = 0.0,
) -> Tensor:
    """InfoNCE with negatives of every kind. With s = cosine / temperature, q an anchor, p its positive, row i loses

        -log exp s(q_i, p_i) / Z_i,   Z_i = exp s(q_i, p_i)
            + sum over documents d of exp s(q_i, d)     query-document
            + sum over queries q   of exp s(q_i, q)     query-query
            + sum over documents d of exp s(p_i, d)     document-document

    each sum over the candidates that are not excluded; the positive stands in Z_i once, also without query-document.
    document-query is a direction of its own: the positive finds its query,

        -log exp s(q_i, p_i) / sum over queries q of exp s(q, p_i),

    averaged with the first (Radford et al. 2021, "CLIP", figure 3). With `partition="joint"` this sum, own query
    included, is a fourth part of Z_i instead, which is GTE's loss to the letter.

    Hardness weighting multiplies the exponential of every negative of query-document by exp(strength * cosine), a
    weight through which no gradient flows: Lan et al. 2025, "LLaVE", eq. 5, there for in-batch negatives; here, as in
    sentence-transformers' "all_negatives", for the row's own ones too.

    Args:
        cosine: block -> raw cosines ([N, M] or [N, U]), of the blocks that are on.
        excluded: block -> True where a candidate is no negative; a target is never excluded.
        anchor_N: each row's anchor among the queries: the target of document-query.
        target_N: each row's positive among the documents.
        positive_N: cosine of each anchor and its positive.
        temperature: one for all rows, or [N].
        partition: whether document-query has a softmax of its own, or shares one with the others.
        hardness_strength: 0 switches the weighting off.

    Returns:
        A scalar, the mean over the rows.

    Source: Li et al. 2023, "Towards General Text Embeddings", eq. 2; Zhang et al. 2025, "Qwen3 Embedding", eq. 1
    (the masks, and no document-query).
    """
    parts = _logits(cosine, excluded, anchor_N, target_N, temperature, hardness_strength)
    backward = None if partition == "joint" else parts.pop("document-query", None)
    losses = []
    if parts:
        # Where query-document is off, its place is taken by the positive alone.
        with_target = parts.pop("query-document", (positive_N / by_row(temperature, 1))[:, None])
        target_N = target_N if "query-document" in cosine else torch.zeros_like(target_N)
        losses.append(F.cross_entropy(torch.cat([with_target, *parts.values()], dim=1), target_N))
    if backward is not None:
        losses.append(F.cross_entropy(backward, anchor_N))
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()


def by_row(temperature: float | Tensor, ndim: int = 2) -> float | Tensor:
    """Shape a temperature so that it divides [N, M] (or [N]) row by row."""
    if isinstance(temperature, Tensor) and temperature.ndim == 1 and ndim == 2:
        return temperature[:, None]
    return temperature


def _logits(
    cosine: Mapping[Block, Tensor],
    excluded: Mapping[Block, Tensor],
    anchor_N: Tensor,
    target_N: Tensor,
    temperature: float | Tensor,
    hardness_strength: float,
) -> dict[Block, Tensor]:
    logits: dict[Block, Tensor] = {}
    targets: dict[Block, Tensor] = {"query-document": target_N, "document-query": anchor_N}
    for block, cosine_NM in cosine.items():
        logits_NM = cosine_NM / by_row(temperature)
        if block == "query-document" and hardness_strength:
            weight_NM = hardness_strength * cosine_NM.detach()
            logits_NM = logits_NM + weight_NM.scatter(1, target_N[:, None], 0.0)
        logits[block] = _without(logits_NM, excluded.get(block), targets.get(block))
    return logits


def _without(logits_NM: Tensor, excluded_NM: Tensor | None, target_N: Tensor | None) -> Tensor:
    """The logits, minus infinity where excluded, except at the target."""
    if excluded_NM is None:
        return logits_NM
    if target_N is not None:
        excluded_NM = excluded_NM.scatter(1, target_N[:, None], False)
    return logits_NM.masked_fill(excluded_NM, -torch.inf)
