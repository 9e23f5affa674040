"""Packed attention against the plain definition: one softmax with a block-diagonal mask."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from acclimate.errors import ModelError
from acclimate.models import attention
from acclimate.models.attention import packed_attention

LENGTHS = (5, 5, 5, 3, 1, 1, 7, 5)


def layer(causal: bool) -> Any:
    return SimpleNamespace(is_causal=causal, config=SimpleNamespace())


def reference(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], causal: bool) -> Tensor:
    """Softmax over the whole row, everything outside a text's own block masked."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    mask = torch.block_diag(*(torch.ones(length, length) for length in lengths)).bool()
    mask = (mask.tril() if causal else mask).to(query.device)
    scores = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


def states(heads: int, key_heads: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    tokens = sum(LENGTHS)
    return [torch.randn(1, tokens, count, 8, dtype=dtype) for count in (heads, key_heads, key_heads)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("matrix_elements", [2**24, 60])
def test_equals_block_diagonal_mask_with_gradient(
    causal: bool, key_heads: int, matrix_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MATRIX_ELEMENTS", matrix_elements)
    attention._runs.cache_clear()
    results = []
    for function in (reference, None):
        leaves = [tensor.clone().requires_grad_(True) for tensor in states(4, key_heads)]
        query, key, value = (leaf.transpose(1, 2) for leaf in leaves)
        if function is None:
            out = packed_attention(layer(causal), query, key, value, None, lengths=LENGTHS)[0]
        else:
            out = function(query, key, value, LENGTHS, causal)
        (out * torch.arange(out.numel()).view(out.shape).sin()).sum().backward()
        results.append([out, *(leaf.grad for leaf in leaves)])
    attention._runs.cache_clear()
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(expected, found, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_eager_equals_sdpa(causal: bool, key_heads: int) -> None:
    query, key, value = (torch.randn(3, count, 6, 8, dtype=torch.float64) for count in (4, key_heads, key_heads))
    eager = attention._eager(query, key, value, causal, 0.3)
    assert torch.allclose(eager, attention._sdpa(query, key, value, causal, 0.3), atol=1e-12)


def test_bfloat16_under_gradient_stays_close() -> None:
    exact = states(4, 4, torch.float32)
    expected = reference(*(tensor.transpose(1, 2) for tensor in exact), LENGTHS, causal=False)
    leaves = [tensor.bfloat16().requires_grad_(True) for tensor in exact]
    query, key, value = (leaf.transpose(1, 2) for leaf in leaves)
    out = packed_attention(layer(causal=False), query, key, value, None, lengths=LENGTHS)[0]
    assert out.requires_grad and out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), expected, atol=0.03)


def test_a_config_may_switch_causality_off() -> None:
    query, key, value = (tensor.transpose(1, 2) for tensor in states(4, 4))
    module = SimpleNamespace(is_causal=True, config=SimpleNamespace(is_causal=False))
    out = packed_attention(module, query, key, value, None, lengths=LENGTHS)[0]  # type: ignore[arg-type]
    assert torch.allclose(out, reference(query, key, value, LENGTHS, causal=False))


def test_long_runs_are_split() -> None:
    attention._runs.cache_clear()
    assert attention._runs((512,) * 20, 16) == [(4, 512)] * 5  # 16 * 512 * 512 = 2^22 weights a text, 2^24 at once
    assert attention._runs((4096, 8, 8, 9), 16) == [(1, 4096), (2, 8), (1, 9)]


def test_refuses_padded_calls() -> None:
    query = torch.randn(2, 4, 6, 8)
    with pytest.raises(ModelError, match="Encoder"):
        packed_attention(layer(causal=False), query, query, query, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="variable-length attention needs CUDA")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_variable_length_attention_on_cuda(causal: bool, key_heads: int) -> None:
    exact = states(4, key_heads, torch.float32)
    leaves = [tensor.cuda().bfloat16().requires_grad_(True) for tensor in exact]
    query, key, value = (leaf.transpose(1, 2) for leaf in leaves)
    with torch.inference_mode():  # the borders are cached here first, and must serve the backward pass below
        packed_attention(layer(causal), query, key, value, None, lengths=LENGTHS)
    out = packed_attention(layer(causal), query, key, value, None, lengths=LENGTHS)[0]
    expected = reference(*(leaf.detach().float().transpose(1, 2) for leaf in leaves), LENGTHS, causal)
    assert torch.allclose(out.float(), expected, atol=0.03)
    out.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
