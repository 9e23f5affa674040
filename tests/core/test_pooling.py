"""Pooling of packed texts, by hand and against one text at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.pooling import pool_packed, pool_padded, truncate_dim, unit
from acclimate.types import Pooling

HIDDEN = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0], [7.0, 8.0], [9.0, 1.0], [2.0, 2.0]])
LENGTHS = torch.tensor([2, 1, 3])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [[2.0, 3.0], [5.0, 0.0], [6.0, 11 / 3]]),  # (1+3)/2, (2+4)/2; 5, 0; (7+9+2)/3, (8+1+2)/3
        ("cls", [[1.0, 2.0], [5.0, 0.0], [7.0, 8.0]]),
        ("last", [[3.0, 4.0], [5.0, 0.0], [2.0, 2.0]]),
    ],
)
def test_by_hand(pooling: Pooling, expected: list[list[float]]) -> None:
    assert torch.allclose(pool_packed(HIDDEN, LENGTHS, pooling), torch.tensor(expected))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_bfloat16_states_are_pooled_in_float32(pooling: Pooling) -> None:
    pooled = pool_packed(HIDDEN.bfloat16(), LENGTHS, pooling)
    assert pooled.dtype == torch.float32
    assert torch.allclose(pooled, pool_packed(HIDDEN, LENGTHS, pooling))  # 11/3 would not survive bfloat16


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_padding_changes_nothing(pooling: Pooling) -> None:
    """What stands behind a text's end is not looked at."""
    padded = torch.full((3, 4, 2), 99.0)
    mask = torch.zeros(3, 4, dtype=torch.int64)
    for row, states in enumerate(HIDDEN.split(LENGTHS.tolist())):
        padded[row, : len(states)], mask[row, : len(states)] = states, 1
    assert torch.allclose(pool_padded(padded, mask, pooling), pool_packed(HIDDEN, LENGTHS, pooling))


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.sampled_from(["mean", "cls", "last"]))
def test_equals_one_text_at_a_time_with_gradient(lengths: list[int], pooling: Pooling) -> None:
    torch.manual_seed(sum(lengths))
    packed = torch.randn(sum(lengths), 3, requires_grad=True)
    single = packed.detach().clone().requires_grad_(True)
    alone = {"mean": lambda text: text.mean(0), "cls": lambda text: text[0], "last": lambda text: text[-1]}[pooling]
    expected = torch.stack([alone(text) for text in single.split(lengths)])
    pooled = pool_packed(packed, torch.tensor(lengths), pooling)
    assert torch.allclose(pooled, expected, atol=1e-6)
    weights = torch.randn_like(pooled)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    assert packed.grad is not None and single.grad is not None
    assert torch.allclose(packed.grad, single.grad, atol=1e-6)


def test_unit_and_truncation() -> None:
    assert torch.allclose(unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert torch.allclose(truncate_dim(torch.tensor([[3.0, 4.0, 12.0]]), 2), torch.tensor([[0.6, 0.8]]))
