"""INT8 layers against the same arithmetic in float64; LoRA over them; what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from acclimate.core import int8_linear, lora
from acclimate.core.int8_linear import (
    Family,
    Int8Embedding,
    Int8Linear,
    int8_numbers,
    quantise,
    rounded_rows,
    rounded_tokens,
    why_not_int8,
)
from acclimate.core.linears import linears
from acclimate.errors import UsageError

pytestmark = pytest.mark.skipif(why_not_int8() is not None, reason=f"needs INT8 products: {why_not_int8()}")
FORMATS = [torch.float32, torch.bfloat16]


def plain(d_in: int, d_out: int, *, bias: bool = True) -> nn.Linear:
    return nn.Linear(d_in, d_out, bias=bias).requires_grad_(False)


def expected(linear: nn.Linear, x: Tensor) -> Tensor:
    """The rounded weight times the rounded activations, in float64."""
    dtype = x.dtype
    codes_OI, scale_O1 = rounded_rows(linear.weight)
    # By the definition, not by what the layer computes with: a scale per token, which its largest value has as 127.
    scale_T1 = (x.abs().amax(1, keepdim=True) * torch.tensor(1 / 127, dtype=dtype)).clamp(min=1e-30).double()
    codes_TI = (x.double() / scale_T1).round()
    y_TO = (codes_TI @ codes_OI.double().t()) * scale_O1.double().t() * scale_T1
    return y_TO if linear.bias is None else y_TO + linear.bias.to(dtype).double()


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70)),
    dtype=st.sampled_from(FORMATS),
    bias=st.booleans(),
    block=st.sampled_from([200, 2**20]),
)
def test_equals_the_same_arithmetic_in_float64(
    sizes: tuple[int, int, int], dtype: torch.dtype, bias: bool, block: int
) -> None:
    rows, d_in, d_out = sizes
    linear, x = plain(d_in, d_out, bias=bias), torch.randn(rows, d_in).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_linear, "BLOCK_NUMBERS", block)
        found = Int8Linear(linear, dtype)(x)
    assert found.dtype == dtype
    tolerance = 2e-2 if dtype == torch.bfloat16 else 2e-3  # a value between two codes may go to either
    exact = expected(linear, x)
    assert (found.double() - exact).abs().max() <= tolerance * (1 + exact.abs().max())


def test_rounding_by_hand() -> None:
    x = torch.tensor([[-127.0, 63.4, 0.4, 0.5, 1.5], [0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.54, -1.0]])
    codes, scales = rounded_tokens(x)
    # 0.5 and 1.5 lie between two codes: to the even one
    assert codes.tolist() == [[1, 191, 128, 128, 130], [128] * 5, [128, 128, 128, 255, 78]]
    assert scales[0].item() == pytest.approx(1) and scales[2].item() == pytest.approx(0.02)
    assert x[0, 0] == -127, "the input stays as it is"


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_token_does_not_depend_on_its_neighbours(dtype: torch.dtype) -> None:
    layer, x = Int8Linear(plain(32, 48), dtype), torch.randn(600, 32).to(dtype)
    alone, together = layer(x[:3]), layer(torch.cat([x[:3], 100 * x[3:]]))
    assert torch.equal(alone, together[:3])


@pytest.mark.parametrize("dtype", FORMATS)
def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    x = torch.ones(3, 16, dtype=dtype)
    x[0, 3], x[2, 5] = float("nan"), float("inf")
    found = Int8Linear(plain(16, 16), dtype)(x)
    assert not found[[0, 2]].isfinite().any() and found[1].isfinite().all()


def test_shapes_and_no_rows() -> None:
    layer = Int8Linear(plain(16, 24), torch.float32)
    assert layer(torch.randn(2, 5, 16)).shape == (2, 5, 24)
    assert layer(torch.randn(0, 16)).shape == (0, 24)
    x = torch.randn(16, 6)
    assert torch.equal(layer(x.t()), layer(x.t().contiguous())), "columns of a matrix are rounded as rows are"


def test_an_embedding_is_rounded_by_row() -> None:
    embedding = nn.Embedding(7, 5, padding_idx=0).requires_grad_(False)
    ids = torch.tensor([[1, 2, 0], [6, 6, 3]])
    found = Int8Embedding(embedding, torch.bfloat16)(ids)
    assert found.dtype == torch.bfloat16 and found.shape == (2, 3, 5)
    half_step = embedding.weight.abs().amax(1)[ids] / 127 / 2
    assert ((found - embedding(ids)).abs().amax(2) <= half_step + embedding(ids).abs().amax(2) / 256).all()
    assert not found[0, 2].any()


def test_a_gradient_is_refused() -> None:
    x = torch.randn(2, 16, requires_grad=True)
    layer = Int8Linear(plain(16, 16), torch.float32)
    with pytest.raises(UsageError, match="gradient through a layer in INT8"):
        layer(x)
    with torch.no_grad():
        layer(x)


def test_layers_of_one_input_round_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    rounding = rounded_tokens

    def counted(x: Tensor) -> Any:
        calls.append(len(x))
        return rounding(x)

    monkeypatch.setattr(int8_linear, "rounded_tokens", counted)
    layers = [Int8Linear(plain(16, 16), torch.float32) for _ in range(3)]
    x, other = torch.randn(4, 16), torch.randn(4, 16)
    apart = [[layer(one) for layer in layers] for one in (x, other)]
    assert len(calls) == 6
    family = Family(3)
    for layer in layers:
        layer.family = family
    calls.clear()
    for one, outputs in zip((x, other), apart, strict=True):
        assert all(torch.equal(layer(one[None])[0], output) for layer, output in zip(layers, outputs, strict=True))
    assert calls == [4, 4]
    assert int8_linear._thread.last is None, "nothing is kept when all have had it"
    layers[0](x)
    x.mul_(2)
    layers[0](other)
    calls.clear()
    assert torch.equal(layers[1](x), Int8Linear.forward(layers[1], x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(9, 32), nn.Embedding(4, 32)
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.narrow, self.norm = nn.Linear(32, 8), nn.LayerNorm(32)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.words(ids))
        return self.query(x) + self.key(x) * self.value(x)


def model(dtype: torch.dtype) -> Block:
    torch.manual_seed(0)
    block = Block().requires_grad_(False)
    quantise(block, dtype)
    return block


def test_what_of_a_model_is_quantised() -> None:
    block = model(torch.bfloat16)
    kinds = {name: type(module) for name, module in block.named_children()}
    assert kinds == {
        "words": Int8Embedding,
        "places": nn.Embedding,
        **dict.fromkeys(("query", "key", "value"), Int8Linear),
        "narrow": nn.Linear,
        "norm": nn.LayerNorm,
    }
    assert {parameter.dtype for parameter in block.parameters()} == {torch.bfloat16}
    assert block.query.family is block.key.family is block.value.family is not None  # type: ignore[union-attr]
    assert int8_numbers(block) == 9 * 32 + 3 * 33 * 32
    assert set(linears(block)) == {"query", "key", "value", "narrow"}
    large = [tensor for tensor in (*block.parameters(), *block.buffers()) if tensor.numel() >= 9 * 32]
    assert all(tensor.element_size() == 1 or tensor is block.narrow.weight for tensor in large), "no float weights stay"


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_lora_adds_its_own_product_in_the_format_of_activations(dtype: torch.dtype, weight: float) -> None:
    """INT8 base + B A x, in a mixed batch too: two texts with adapter 0 and 1, one with none."""
    linear, lengths = plain(32, 48), [4, 2, 3]
    block = nn.ModuleDict({"q": Int8Linear(linear, dtype)})
    x = torch.randn(9, 32).to(dtype)
    base = block["q"](x)
    pairs = [{"q": (torch.randn(r, 32) / 6, torch.randn(48, r) / 6)} for r in (2, 3)]
    lora.attach_set(block, pairs, dtype)
    gate = torch.tensor([[weight, 0], [0, 1.0], [0, 0]])
    with torch.inference_mode(), lora.gate(block, gate, lengths):
        found = block["q"](x)
    deltas = [(x @ pair["q"][0].to(dtype).t()) @ pair["q"][1].to(dtype).t() for pair in pairs]
    wanted = base.clone()
    wanted[:4] += weight * deltas[0][:4]
    wanted[4:6] += deltas[1][4:6]
    close = 1e-4 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found, wanted, rtol=close, atol=close)
    assert torch.equal(found[6:], base[6:])


def test_copies_that_share_weights_share_them_in_int8() -> None:
    block = model(torch.float32)
    twin = copy.deepcopy(block, {id(tensor): tensor for tensor in (*block.parameters(), *block.buffers())})
    assert twin.query.packed is block.query.packed and twin.words.code_VI is block.words.code_VI
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(twin(ids), block(ids))
    assert twin.query.family is twin.key.family is not block.query.family


def test_a_processor_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_linear, "_flags", lambda: frozenset({"avx2"}))
    reason = why_not_int8()
    assert reason is not None and "neither VNNI nor AMX" in reason
