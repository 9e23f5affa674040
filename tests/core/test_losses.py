"""The losses, with the arithmetic in sight and against loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from acclimate.core.losses import cosine_mse, info_nce


def unit_rows(count: int, size: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, size, generator=generator, dtype=dtype), dim=-1)


def test_info_nce_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0]])
    documents = torch.tensor([[0.6, 0.8], [0.0, 1.0]])  # cosines 0.6 and 0
    loss = info_nce(query, documents, torch.tensor([0]), None, temperature=0.5)
    # -log( e^(0.6/0.5) / (e^(0.6/0.5) + e^0) )
    assert loss.item() == pytest.approx(-math.log(math.exp(1.2) / (math.exp(1.2) + 1)), abs=1e-6)


def test_info_nce_with_everything_masked_is_zero_because_the_target_stays() -> None:
    query, documents = unit_rows(2, 4, 0), unit_rows(3, 4, 1)
    everything = torch.ones(2, 3, dtype=torch.bool)
    loss = info_nce(query, documents, torch.tensor([2, 0]), everything, temperature=0.05)
    assert loss.item() == 0.0
    assert everything.all(), "the caller's mask is not changed"


def test_info_nce_equals_a_loop() -> None:
    query, documents = unit_rows(5, 8, 2), unit_rows(9, 8, 3)
    target = torch.tensor([0, 3, 3, 8, 1])
    mask = torch.rand(5, 9, generator=torch.Generator().manual_seed(4)) < 0.4
    total = 0.0
    for row in range(5):
        exponents = {
            column: math.exp(float(query[row] @ documents[column]) / 0.1)
            for column in range(9)
            if column == target[row] or not mask[row, column]
        }
        total -= math.log(exponents[int(target[row])] / sum(exponents.values()))
    assert info_nce(query, documents, target, mask, 0.1).item() == pytest.approx(total / 5, abs=1e-12)


def test_a_masked_candidate_gets_no_gradient() -> None:
    query, documents = unit_rows(1, 4, 5), unit_rows(3, 4, 6).requires_grad_()
    mask = torch.tensor([[False, True, False]])
    info_nce(query, documents, torch.tensor([0]), mask, 0.05).backward()
    assert documents.grad is not None
    assert documents.grad[1].abs().sum() == 0
    assert documents.grad[2].abs().sum() > 0


def test_losses_are_float32_for_half_precision_vectors() -> None:
    query, documents = unit_rows(2, 8, 7).bfloat16(), unit_rows(3, 8, 8).bfloat16()
    loss = info_nce(query, documents, torch.tensor([0, 1]), None, 0.05)
    assert loss.dtype == torch.float32
    exact = info_nce(query.double(), documents.double(), torch.tensor([0, 1]), None, 0.05)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert cosine_mse(query, query, torch.ones(2)).dtype == torch.float32


def test_cosine_mse_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    b = torch.tensor([[0.6, 0.8], [1.0, 0.0]])  # cosines 0.6 and 0
    loss = cosine_mse(a, b, torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx(((0.6 - 1.0) ** 2 + (0.0 - 0.5) ** 2) / 2)
