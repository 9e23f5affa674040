"""The rerankers' losses by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from acclimate.core.ranking import listwise, pairwise, pointwise

SCORES = torch.tensor([[2.0, 1.0, -1.0], [0.5, 1.5, 99.0]])
PRESENT = torch.tensor([[True, True, True], [True, True, False]])  # the 99 is padding


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_pointwise() -> None:
    terms = [-log(sigmoid(2)), -log(1 - sigmoid(1)), -log(1 - sigmoid(-1)), -log(sigmoid(0.5)), -log(1 - sigmoid(1.5))]
    assert float(pointwise(SCORES, PRESENT)) == pytest.approx(sum(terms) / 5)


def test_listwise() -> None:
    first = -log(exp(2) / (exp(2) + exp(1) + exp(-1)))
    second = -log(exp(0.5) / (exp(0.5) + exp(1.5)))
    assert float(listwise(SCORES, PRESENT)) == pytest.approx((first + second) / 2)


def test_pairwise() -> None:
    terms = [log(1 + exp(1 - 2)), log(1 + exp(-1 - 2)), log(1 + exp(1.5 - 0.5))]
    assert float(pairwise(SCORES, PRESENT)) == pytest.approx(sum(terms) / 3)


@pytest.mark.parametrize("loss", [pointwise, listwise, pairwise])
def test_padding_gets_no_gradient_and_a_better_order_costs_less(loss: object) -> None:
    assert callable(loss)
    scores = SCORES.clone().requires_grad_()
    loss(scores, PRESENT).backward()
    assert scores.grad is not None and scores.grad[1, 2] == 0 and (scores.grad[:, 0] < 0).all()
    assert loss(SCORES + torch.tensor([1.0, 0.0, 0.0]), PRESENT) < loss(SCORES, PRESENT)
