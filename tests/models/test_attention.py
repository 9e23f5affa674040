"""Packed attention against the plain definition: one softmax with a block-diagonal mask."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import Qwen3Config, Qwen3Model

from acclimate.core import lora
from acclimate.core.linears import linear_names
from acclimate.errors import ModelError
from acclimate.models import attention, attention_segments
from acclimate.models.attention import packed_attention
from acclimate.models.encoder import Encoder
from acclimate.models.loading import checkpoint_activations, compile_layers
from tests.models import tiny

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
@pytest.mark.parametrize("step", [1, 2, 8])
def test_equals_block_diagonal_mask_with_gradient(
    causal: bool, key_heads: int, matrix_elements: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact in float64: runs of one length by SDPA (step 1), and nearly equal ones padded, by plain products."""
    monkeypatch.setattr(attention_segments, "MATRIX_ELEMENTS", matrix_elements)
    monkeypatch.setattr(attention, "EAGER_DTYPES", (torch.float64,) if step > 1 else ())
    monkeypatch.setattr(attention, "EAGER_STEP", step)
    monkeypatch.setattr(attention, "EAGER_MAX_LENGTH", 6)
    attention_segments.text_runs.cache_clear()
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
    attention_segments.text_runs.cache_clear()
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(expected, found, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_eager_equals_sdpa(causal: bool, key_heads: int) -> None:
    query, key, value = (torch.randn(3, count, 6, 8, dtype=torch.float64) for count in (4, key_heads, key_heads))
    eager = attention._eager(query, key, value, causal, 0.3, None)
    assert torch.allclose(eager, attention._sdpa(query, key, value, causal, 0.3), atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_without_gradient_it_means_the_same(
    causal: bool, key_heads: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padded runs, by exponentials without a maximum, and by the softmax where scores are beyond +-75."""
    monkeypatch.setattr(attention, "EAGER_DTYPES", (torch.float64,))
    monkeypatch.setattr(attention, "MANY_SCORES", 1)
    query, key, value = (tensor.transpose(1, 2) for tensor in states(4, key_heads))
    query = query * spread
    expected = reference(query, key, value, LENGTHS, causal)
    with torch.no_grad():
        found = packed_attention(layer(causal), query, key, value, None, lengths=LENGTHS)[0]
    assert torch.allclose(expected, found, atol=1e-12)
    text = query[0, :, :5] @ key[0, :, :5].repeat_interleave(4 // key_heads, 0).transpose(1, 2) * 8**-0.5
    assert attention._is_bounded(text) is (spread == 1.0)


def test_bfloat16_under_gradient_stays_close() -> None:
    exact = states(4, 4, torch.float32)
    expected = reference(*(tensor.transpose(1, 2) for tensor in exact), LENGTHS, causal=False)
    leaves = [tensor.bfloat16().requires_grad_(True) for tensor in exact]
    query, key, value = (leaf.transpose(1, 2) for leaf in leaves)
    out = packed_attention(layer(causal=False), query, key, value, None, lengths=LENGTHS)[0]
    assert out.requires_grad and out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), expected, atol=0.03)


def test_trained_through_after_inference_over_the_same_lengths() -> None:
    attention_segments.text_runs.cache_clear()
    parts = [tensor.bfloat16().transpose(1, 2) for tensor in states(4, 4, torch.float32)]
    with torch.inference_mode():
        packed_attention(layer(causal=False), *parts, None, lengths=LENGTHS)
    leaves = [part.clone().requires_grad_() for part in parts]
    packed_attention(layer(causal=False), *leaves, None, lengths=LENGTHS)[0].sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


def test_a_config_may_switch_causality_off() -> None:
    query, key, value = (tensor.transpose(1, 2) for tensor in states(4, 4))
    module = SimpleNamespace(is_causal=True, config=SimpleNamespace(is_causal=False))
    out = packed_attention(module, query, key, value, None, lengths=LENGTHS)[0]  # type: ignore[arg-type]
    assert torch.allclose(out, reference(query, key, value, LENGTHS, causal=False))


def cut(*arguments: Any) -> list[tuple[int, int]]:
    return [(run.texts, run.slots) for run in attention_segments.text_runs(*arguments)]


def test_long_runs_are_split() -> None:
    assert cut((512,) * 20, 16) == [(4, 512)] * 5  # 16 * 512 * 512 = 2^22 weights a text, 2^24 at once
    assert cut((4096, 8, 8, 9), 16) == [(1, 4096), (2, 8), (1, 9)]


def test_nearly_equal_lengths_are_one_run() -> None:
    lengths = (20, 19, 17, 16, 16, 12, 7, 5, 1)
    assert cut(lengths, 2, 8, 16) == [(1, 20), (1, 19), (1, 17), (3, 16), (3, 7)]
    found = attention_segments.text_runs(lengths, 2, 8, 16)
    assert [run.tokens for run in found] == [20, 19, 17, 44, 13]
    assert [run.padding is None for run in found] == [True, True, True, False, False]
    padding = found[-1].padding
    assert padding is not None
    assert padding.empty.tolist() == [[False] * 7, [False] * 5 + [True] * 2, [False] + [True] * 6]
    assert padding.collect.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14]
    assert padding.spread[padding.collect].tolist() == list(range(13))


def test_refuses_padded_calls() -> None:
    query = torch.randn(2, 4, 6, 8)
    with pytest.raises(ModelError, match="Encoder"):
        packed_attention(layer(causal=False), query, query, query, None)


def varlen_by_definition(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool = False,
) -> Tensor:
    """What torch documents of `varlen_attn`, whose kernel runs on CUDA only."""
    lengths = tuple(cu_seq_q.diff().tolist())
    assert torch.equal(cu_seq_q, cu_seq_k) and cu_seq_q.dtype == torch.int32 and max_q == max_k == max(lengths)
    assert enable_gqa == (query.shape[1] != key.shape[1]) and window_size in ((-1, -1), (-1, 0))
    batch = (part.transpose(0, 1)[None] for part in (query * scale * query.shape[-1] ** 0.5, key, value))
    return reference(*batch, lengths, causal=window_size == (-1, 0))[0]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_the_variable_length_call_means_the_same(causal: bool, key_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", varlen_by_definition)
    query, key, value = (tensor.transpose(1, 2) for tensor in states(4, key_heads))
    borders = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    found = packed_attention(layer(causal), query, key, value, None, scaling=0.3, borders=borders, longest=7)[0]
    expected = packed_attention(layer(causal), query, key, value, None, scaling=0.3, lengths=LENGTHS)[0]
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_compiled_graph_serves_all_layers_and_chunks(checkpointing: bool) -> None:
    """On the meta device, where torch's own shape rules of the kernel hold: no graph break, no graph per chunk."""
    sizes: Any = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 16}
    config = Qwen3Config(vocab_size=9, num_attention_heads=4, num_key_value_heads=2, **sizes)
    config._attn_implementation = attention.PACKED_ATTENTION
    with torch.device("meta"):
        model = Qwen3Model(config).to(torch.bfloat16).requires_grad_(False)
        shapes = {name: model.get_submodule(name).weight.shape for name in linear_names(model)}
        modules = {name: (torch.empty(2, wide), torch.empty(high, 2)) for name, (high, wide) in shapes.items()}
        lora.attach_weights(model, modules, trainable=True)
    graphs = CompileCounterWithBackend("aot_eager")
    compile_layers(model, graphs)
    if checkpointing:
        checkpoint_activations(model)
    counts = []
    for tokens, texts, longest in ((12, 3, 5), (20, 4, 9), (33, 7, 11)):
        ids = torch.zeros(1, tokens, dtype=torch.int64, device="meta")
        borders = torch.zeros(texts + 1, dtype=torch.int32, device="meta")
        chunk = {"input_ids": ids, "position_ids": ids, "borders": borders, "longest": longest, "use_cache": False}
        hidden = model.train()(**chunk).last_hidden_state
        assert hidden.shape == (1, tokens, 64)
        hidden.sum().backward()
        counts.append(graphs.frame_count)
    assert counts[0] <= 3 and counts == counts[:1] * 3  # the first layer's input needs no gradient, the others' do


@pytest.mark.skipif(not torch.cuda.is_available(), reason="variable-length attention needs CUDA")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_variable_length_attention_on_cuda(causal: bool, key_heads: int) -> None:
    exact = states(4, key_heads, torch.float32)
    leaves = [tensor.cuda().bfloat16().requires_grad_(True) for tensor in exact]
    query, key, value = (leaf.transpose(1, 2) for leaf in leaves)
    borders = torch.tensor([0, *LENGTHS]).cumsum(0).to("cuda", torch.int32)
    out = packed_attention(layer(causal), query, key, value, None, borders=borders, longest=7)[0]
    expected = reference(*(leaf.detach().float().transpose(1, 2) for leaf in leaves), LENGTHS, causal)
    assert torch.allclose(out.float(), expected, atol=0.03)
    out.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("model", ["bert", "qwen3"])
def test_vectors_on_cuda_are_those_of_the_cpu(model: str, compiled: bool, tmp_path: Path) -> None:
    make, pooling = {"bert": (tiny.tiny_bert, "mean"), "qwen3": (tiny.tiny_qwen3, "last")}[model]
    folder = tiny.as_sentence_transformer(make(tmp_path), pooling)
    texts = ["list files", "水稻病虫害", "", "show disk usage " * 60, "x"]
    exact = Encoder.load(str(folder), device="cpu", dtype="float32").encode(texts)
    rough = Encoder.load(str(folder), device="cuda", dtype="bfloat16")
    if compiled:
        compile_layers(rough.model)
    assert (rough.encode(texts) * exact).sum(1).min() > 0.99
    single = Encoder.load(str(folder), device="cuda", dtype="float32")
    assert abs(single.encode(texts) - exact).max() < 1e-3
