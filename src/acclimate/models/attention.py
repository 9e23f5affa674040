"""Attention over packed texts: several texts one after the other in one row, and no text sees another.

Registered with transformers' `AttentionInterface` as "acclimate_packed". The borders are explicit: the keyword
`lengths`, which transformers hands through every layer (gradient checkpointing included), never inferred from
`position_ids`. transformers builds no mask for an attention function that has no mask function, so none costs memory.

Shapes: N texts, T packed tokens, H heads, G key/value heads (H of grouped-query attention is a multiple), d head
dimension, l length of one text, n texts of that length in a row.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from acclimate.errors import ModelError

PACKED_ATTENTION = "acclimate_packed"
PACKED_MODEL_TYPES = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "qwen2", "qwen3", "llama", "mistral"}
)
"""Architectures whose packed vectors are tested to equal those of one text at a time."""

EAGER_MAX_LENGTH = 128
"""Under gradient in bfloat16 on a CPU, plain matrix products beat SDPA up to here (1.6 to 2.5 times on AMX hardware).
In float32 SDPA won at every length from 8 to 1024, with and without gradient."""
MATRIX_ELEMENTS = 2**24
"""At most so many attention weights at once (n H l l); a run of more texts is computed in parts."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    lengths: tuple[int, ...] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function over packed texts.

    Args:
        module: the attention layer; `is_causal` and its config's `is_causal` are read.
        query: [1, H, T, d].
        key: [1, G, T, d].
        value: [1, G, T, d].
        attention_mask: None; the lengths say it all.
        scaling: factor on the products; 1 / sqrt(d) if not given.
        lengths: tokens of each text, in packed order; their sum is T.

    Returns:
        [1, T, H, d] and no weights.

    Raises:
        ModelError: called without lengths, or with a mask: the model was not called through `Encoder`.
    """
    if lengths is None or attention_mask is not None or query.shape[0] != 1:
        raise ModelError("Packed attention was called with padded texts", fix="Call the model through Encoder.")
    causal = bool(getattr(module, "is_causal", False)) and getattr(module.config, "is_causal", True) is not False
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return _varlen(query, key, value, lengths, causal, scale), None
    return _by_runs(query, key, value, lengths, causal, scale), None


def _varlen(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], causal: bool, scale: float) -> Tensor:
    """All texts in one call of torch's variable-length FlashAttention (half precision on CUDA only)."""
    from torch.nn.attention.varlen import varlen_attn

    borders = _borders(lengths, query.device)
    longest = max(lengths)
    out_THd = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        borders,
        borders,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out_THd, Tensor)
    return out_THd[None]


def _by_runs(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], causal: bool, scale: float) -> Tensor:
    """Texts of one length that follow one another are one batch [n, H, l, d], without padding and without a mask."""
    eager = query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()
    runs = _runs(lengths, query.shape[1])
    # One split, not a slice per run: the gradient of a slice is a zero tensor of the whole row (15 % of a step).
    sizes = [count * length for count, length in runs]
    outputs = []
    for (_, length), *states in zip(
        runs, *(torch.split(part[0], sizes, dim=1) for part in (query, key, value)), strict=True
    ):
        attend = _eager if eager and length <= EAGER_MAX_LENGTH else _sdpa
        query_nHld, key_nGld, value_nGld = (_batch(part, length) for part in states)
        outputs.append(attend(query_nHld, key_nGld, value_nGld, causal, scale).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[None]


def _batch(states: Tensor, length: int) -> Tensor:
    """[H, T, d] of one run -> [n, H, l, d], a view."""
    heads, _, dim = states.shape
    return states.view(heads, -1, length, dim).transpose(0, 1)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale, enable_gqa=grouped)


def _eager(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    weights = torch.matmul(query * scale, key.transpose(2, 3))
    if causal:
        future = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).triu(1)
        weights = weights.masked_fill(future, float("-inf"))
    return torch.matmul(weights.softmax(-1), value)


@lru_cache(maxsize=8)
def _runs(lengths: tuple[int, ...], heads: int) -> list[tuple[int, int]]:
    """(texts, length) of every run of equal lengths, split so that its attention matrix stays bounded."""
    runs = []
    for length, members in groupby(lengths):
        left = sum(1 for _ in members)
        most = max(1, MATRIX_ELEMENTS // (heads * length * length))
        while left:
            runs.append((min(left, most), length))
            left -= runs[-1][0]
    return runs


@lru_cache(maxsize=8)
def _borders(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Cumulative lengths [N + 1], int32: where each text begins. Every layer of a chunk asks for the same."""
    with torch.inference_mode(False):  # an inference tensor, met again under gradient, could not be saved for backward
        ends = torch.tensor(lengths, dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return F.pad(ends, (1, 0)).to(device)


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
