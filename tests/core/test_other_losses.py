"""Losses on labelled pairs, on own negatives and from teachers: against sentence-transformers', or by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.core import losses


def unit_rows(count: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, size, generator=generator, dtype=torch.float64), dim=-1)


A, B, C = (unit_rows(8, 6, seed) for seed in range(3))
GRADED = torch.tensor([0.0, 0.2, 0.2, 0.5, 0.5, 0.9, 1.0, 1.0], dtype=torch.float64)
BINARY = (GRADED >= 0.5).double()
MODEL: Any = nn.Identity()


def theirs(name: str, embeddings: list[Tensor], labels: Any, **options: Any) -> float:
    """A loss of sentence-transformers on given vectors."""
    from sentence_transformers.sentence_transformer import losses as peer

    loss = getattr(peer, name)(MODEL, **options)
    return float(loss.compute_loss_from_embeddings(embeddings, labels).item())


def test_cosent() -> None:
    assert losses.cosent(A, B, GRADED, 0.05).item() == pytest.approx(theirs("CoSENTLoss", [A, B], GRADED), abs=1e-9)


@pytest.mark.parametrize("size", [6, 5])
def test_angle(size: int) -> None:
    a, b = F.normalize(A[:, :size], dim=-1), F.normalize(B[:, :size], dim=-1)
    assert losses.angle(a, b, GRADED, 0.05).item() == pytest.approx(theirs("AnglELoss", [a, b], GRADED), abs=1e-6)


def test_equal_labels_say_nothing() -> None:
    assert losses.cosent(A, B, torch.ones(8), 0.05).item() == 0.0


@pytest.mark.parametrize("labels", [GRADED, BINARY])
def test_contrastive(labels: Tensor) -> None:
    found = losses.contrastive(A, B, labels, 0.9).item()
    assert found == pytest.approx(theirs("ContrastiveLoss", [A, B], labels, margin=0.9), abs=1e-7)


@pytest.mark.parametrize("labels", [BINARY, torch.ones(8), torch.zeros(8)])
def test_online_contrastive(labels: Tensor) -> None:
    found = losses.online_contrastive(A, B, labels, 1.2).item()
    assert found == pytest.approx(theirs("OnlineContrastiveLoss", [A, B], labels, margin=1.2), abs=1e-9)


def test_binary_by_hand() -> None:
    a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    loss = losses.binary_cross_entropy(a, b, torch.tensor([1.0, 0.0]), threshold=0.5, temperature=0.1)
    # cosines 0.6 and 0.8 -> logits 1 and 3; -log sigmoid(1) and -log(1 - sigmoid(3))
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2, abs=1e-6)


def groups(*negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of A with B (the positives) and the negatives, and what is present."""
    cosine = torch.stack([(A * other).sum(1) for other in (B, *negatives)], dim=1)
    return cosine, torch.ones_like(cosine, dtype=torch.bool)


SCORES = torch.rand(8, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_triplet() -> None:
    from sentence_transformers.sentence_transformer.losses import TripletDistanceMetric

    options = {"distance_metric": TripletDistanceMetric.COSINE, "triplet_margin": 0.3}
    expected = theirs("TripletLoss", [A, B, C], None, **options)
    assert losses.triplet(*groups(C), 0.3).item() == pytest.approx(expected, abs=1e-9)


def test_margin_mse() -> None:
    cosine, present = groups(C, unit_rows(8, 6, 9))
    expected = theirs("MarginMSELoss", [A, B, C, unit_rows(8, 6, 9)], SCORES)
    assert losses.margin_mse(cosine, SCORES, present).item() == pytest.approx(expected, abs=1e-9)


def test_kl_divergence() -> None:
    cosine, present = groups(C, unit_rows(8, 6, 9))
    options = {"student_temperature": 0.1, "teacher_temperature": 0.4}
    expected = theirs("DistillKLDivLoss", [A, B, C, unit_rows(8, 6, 9)], SCORES, **options)
    # theirs is multiplied by the student's temperature squared
    assert losses.kl_divergence(cosine, SCORES, present, 0.1, 0.4).item() == pytest.approx(expected / 0.01, abs=1e-6)


def test_padding_changes_nothing() -> None:
    """Rows of two and three documents together are the mean of each by itself."""
    cosine, present = groups(C, unit_rows(8, 6, 9))
    present[:3, 2] = False
    junk, other = cosine.clone(), cosine.clone()
    junk[:3, 2], other[:3, 2] = 0.99, -0.5
    for loss in (
        lambda values: losses.triplet(values, present, 0.3),
        lambda values: losses.margin_mse(values, SCORES, present),
        lambda values: losses.kl_divergence(values, SCORES, present, 0.1, 1.0),
    ):
        assert loss(junk).item() == loss(other).item()
    short = losses.kl_divergence(cosine[:3, :2], SCORES[:3, :2], present[:3, :2], 0.1, 1.0)
    whole = losses.kl_divergence(cosine[3:], SCORES[3:], present[3:], 0.1, 1.0)
    both = losses.kl_divergence(cosine, SCORES, present, 0.1, 1.0)
    assert both.item() == pytest.approx((3 * short.item() + 5 * whole.item()) / 8, abs=1e-9)


def test_vectors_of_equal_size() -> None:
    expected = theirs("EmbedDistillLoss", [A], [B])
    assert losses.vector_distillation(A, B).item() == pytest.approx(expected, abs=1e-9)
    assert losses.mean_distance(A, B).item() == pytest.approx(expected, abs=1e-9)
    assert losses.mean_distance(A, A).item() == pytest.approx(0.0, abs=1e-12)


def test_vectors_of_other_sizes_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    # cosines 0 and 0.6 between the texts, 1 with themselves: two of four differ by 0.6
    assert losses.vector_distillation(student, teacher).item() == pytest.approx(2 * 0.6**2 / 4)
