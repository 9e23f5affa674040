"""Merged = live, and what cannot be merged says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertModel, Qwen3Config, Qwen3Model

from acclimate.core import lora
from acclimate.core.lora_linear import LoraLinear
from acclimate.core.merging import fold, merge_into
from acclimate.errors import ModelError, UsageError


def test_fold_by_hand() -> None:
    # B A = [[3], [-1]] [[1, 2]] = [[3, 6], [-1, -2]]
    folded = fold(torch.eye(2), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [-1.0]]))
    assert folded.tolist() == [[4.0, 6.0], [-1.0, -1.0]]


def test_fold_computes_in_float32_over_bf16() -> None:
    folded = fold(torch.ones(1, 1, dtype=torch.bfloat16), torch.tensor([[1e-3]]), torch.tensor([[1.0]]))
    assert folded.dtype == torch.float32
    assert folded.item() == pytest.approx(1.001, abs=1e-7)  # bf16 would round this to 1.0


@given(
    seed=st.integers(0, 10_000), rank=st.integers(1, 6), bias=st.booleans(), scaling=st.sampled_from([0.5, 1.0, 2.0])
)
def test_merged_is_live(seed: int, rank: int, bias: bool, scaling: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(7, 5, bias=bias)
    A, B = torch.randn(1, rank, 7, generator=generator), torch.randn(1, 5, rank, generator=generator)
    model = nn.Sequential(LoraLinear(base, A, B, scaling=scaling))
    x = torch.randn(9, 7, generator=generator)
    live = model(x)
    merge_into(model)
    assert type(model[0]) is nn.Linear
    assert torch.allclose(model(x), live, atol=1e-4)


TINY: dict[str, Any] = {
    "bert": lambda: BertModel(
        BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
        add_pooling_layer=False,
    ),
    "qwen3": lambda: Qwen3Model(
        Qwen3Config(
            vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, intermediate_size=64,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", list(TINY))
def test_merged_is_live_in_whole_models(family: str) -> None:
    torch.manual_seed(0)
    model = TINY[family]().eval()
    base_state = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.randint(0, 50, (2, 7))
    layers = lora.attach(model, ["all-linear"], rank=4, alpha=8.0)
    for layer in layers.values():
        nn.init.normal_(layer.B, std=0.05)
    with torch.no_grad():
        live = model(input_ids=ids).last_hidden_state
        with lora.adapters_off(model):
            base = model(input_ids=ids).last_hidden_state
    merge_into(model)
    with torch.no_grad():
        merged = model(input_ids=ids).last_hidden_state
    assert (merged - live).abs().max() < 1e-5
    assert (merged - base).abs().max() > 1e-2
    assert model.state_dict().keys() == base_state.keys()


def test_a_quantised_base_and_a_stack_are_refused() -> None:
    class Int8Linear(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)

    quantised = nn.Sequential(Int8Linear())
    lora.attach(quantised, ["all-linear"], rank=2)
    with pytest.raises(ModelError, match=r"0 cannot take the adapter.*Int8Linear, which is quantised"):
        merge_into(quantised)
    several = nn.Sequential(nn.Linear(4, 4))
    lora.attach(several, ["all-linear"], rank=2, adapters=2)
    with pytest.raises(UsageError, match="2 adapters are attached"):
        merge_into(several)
