"""Attention over packed texts: several texts one after the other in one row, and no text sees another.

Registered with transformers' `AttentionInterface` as "acclimate_packed". The borders are explicit: keywords
(`packing`), which transformers hands through every layer (gradient checkpointing included), never inferred from
`position_ids`. transformers builds no mask for an attention function that has no mask function, so none costs memory.

Shapes: N texts, T packed tokens, H heads, G key/value heads (H of grouped-query attention is a multiple), d head
dimension, l length of one text, n texts of that length in a row.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from acclimate.errors import ModelError
from acclimate.models.attention_segments import text_runs
from acclimate.models.devices import to_device

PACKED_ATTENTION = "acclimate_packed"
PACKED_MODEL_TYPES = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "qwen2", "qwen3", "llama", "mistral"}
)
"""Architectures whose packed vectors are tested to equal those of one text at a time."""

EAGER_DTYPES = (torch.bfloat16,)
EAGER_MAX_LENGTH = 128
"""In bfloat16 on a CPU plain matrix products beat SDPA up to here: its backward pass is 2.5 to 10 times slower, its
forward pass 0 to 4 times. In float32 SDPA won at every length from 8 to 1024, with and without gradient."""
EAGER_MAX_FORWARD = 512
"""The same without gradient, where the softmax needs no maximum (`_eager`): 2.9 times as fast as SDPA at 12 tokens, 1.4
at 200, 1.2 at 512."""
CACHED_ELEMENTS = 2**20
"""The most attention weights at once there: what a core's cache holds."""
MANY_SCORES = 2**14
"""Fewer are not worth it: the softmax is one operation, what stands for it is five."""
EXP_LIMIT = 75.0
"""Scores between minus and plus this need no maximum: their exponentials, and sums of them, are far from the ends of
bfloat16's range, which is float32's. Of MiniLM and E5 two runs in a hundred have larger ones."""
EAGER_STEP = 8
"""Up to these lengths, texts are padded to a multiple of this many tokens: for short texts the number of products
counts, not their size."""
HALF = (torch.float16, torch.bfloat16)
GROUPED_SWITCH = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""From torch 2.12 on grouped queries must be announced; before, the kernel took them as they were."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    lengths: tuple[int, ...] | None = None,
    borders: Tensor | None = None,
    longest: int = 0,
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
        lengths: tokens of each text, in packed order; their sum is T. Not needed with `borders`.
        borders: where each text begins and, last, T; int32 [N + 1], on CUDA in half precision only.
        longest: tokens of the longest text; needed with `borders`.

    Returns:
        [1, T, H, d] and no weights.

    Raises:
        ModelError: called without `packing`'s words, or with a mask: the model was not called through `Encoder`.
    """
    if (lengths is None and borders is None) or attention_mask is not None or query.shape[0] != 1:
        raise ModelError("Packed attention was called with padded texts", fix="Call the model through Encoder.")
    causal = bool(getattr(module, "is_causal", False)) and getattr(module.config, "is_causal", True) is not False
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if borders is not None:
        return _varlen(query, key, value, borders, longest, causal, scale), None
    assert lengths is not None
    return _by_runs(query, key, value, lengths, causal, scale), None


def packing(model: nn.Module, lengths: NDArray[np.int64]) -> dict[str, Any]:
    """The keywords by which packed attention learns the texts' borders.

    Where one call of FlashAttention takes all texts, the borders are a tensor made once a chunk: no layer waits for
    the device, and a compiled layer needs no new graph for every chunk.

    Args:
        model: what is called.
        lengths: tokens of each text, in packed order.
    """
    parameter = next(model.parameters())
    if not takes_borders(model.config, parameter.dtype, parameter.device):
        return {"lengths": tuple(lengths.tolist())}
    borders = torch.from_numpy(np.concatenate([np.zeros(1, np.int64), lengths.cumsum()]).astype(np.int32))
    return {"borders": to_device(borders, parameter.device), "longest": int(lengths.max())}


def takes_borders(config: Any, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether torch's variable-length FlashAttention takes this model: half precision, from the Ampere generation on,
    heads of at most 256 dimensions in steps of 8."""
    if device.type != "cuda":
        return False
    computed = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else dtype
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return computed in HALF and _capability(device) >= (8, 0) and head_dim <= 256 and head_dim % 8 == 0


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int, causal: bool, scale: float
) -> Tensor:
    """All texts in one call of torch's variable-length FlashAttention."""
    grouped: dict[str, Any] = {"enable_gqa": True} if GROUPED_SWITCH and query.shape[1] != key.shape[1] else {}
    # Under autocast, Qwen3's norms of queries and keys give float32; the values are in the format of the products.
    out_THd = varlen_attn(
        query[0].transpose(0, 1).to(value.dtype),
        key[0].transpose(0, 1).to(value.dtype),
        value[0].transpose(0, 1),
        borders,
        borders,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        **grouped,
    )
    assert isinstance(out_THd, Tensor)
    return out_THd[None]


def _by_runs(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], causal: bool, scale: float) -> Tensor:
    """Texts of about one length that follow one another are one batch [n, H, l, d]."""
    eager = query.device.type == "cpu" and query.dtype in EAGER_DTYPES
    learns = torch.is_grad_enabled() and query.requires_grad
    step, longest, elements = 1, 0, None
    if eager:
        step = EAGER_STEP
        longest, elements = (EAGER_MAX_LENGTH, None) if learns else (EAGER_MAX_FORWARD, CACHED_ELEMENTS)
    runs = text_runs(lengths, query.shape[1], step, longest, elements)
    # One split, not a slice per run: the gradient of a slice is a zero tensor of the whole row (15 % of a step).
    sizes = [run.tokens for run in runs]
    outputs = []
    for run, *states in zip(runs, *(torch.split(part[0], sizes, dim=1) for part in (query, key, value)), strict=True):
        query_nHld, key_nGld, value_nGld = (run.spread(part) for part in states)
        if run.slots <= longest:
            empty = None if run.padding is None else run.padding.empty
            output_nHld = _eager(query_nHld, key_nGld, value_nGld, causal, scale, empty)
        else:
            output_nHld = _sdpa(query_nHld, key_nGld, value_nGld, causal, scale)
        outputs.append(run.collect(output_nHld))
    return torch.cat(outputs)[None]


def _sdpa(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale, enable_gqa=grouped)


def _eager(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, empty_nl: Tensor | None) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    weights = torch.matmul(query * scale, key.transpose(2, 3))
    bounded = not weights.requires_grad and weights.numel() >= MANY_SCORES and _is_bounded(weights)
    if empty_nl is not None:
        weights = weights.masked_fill(empty_nl[:, None, None], float("-inf"))
    if causal:
        future = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).triu(1)
        weights = weights.masked_fill(future, float("-inf"))
    if bounded:  # torch's softmax is half of the attention's time, and more of short texts'
        weights.exp_()
        return torch.matmul(weights, value).div_(weights.sum(-1, keepdim=True))
    return torch.matmul(weights.softmax(-1), value)


def _is_bounded(scores: Tensor) -> bool:
    lowest, highest = torch.aminmax(scores)
    return bool(lowest > -EXP_LIMIT) and bool(highest < EXP_LIMIT)


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
