"""Losses on labelled pairs: the cosine of two texts against their label.

Every one takes unit rows a_ND and b_ND, and labels label_N in [0, 1]. Legend: N pairs, D vector size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core.losses.vectors import at_least_float32, row_cosines


def cosine_mse(a_ND: Tensor, b_ND: Tensor, label_N: Tensor) -> Tensor:
    """Mean squared difference between the cosine of two unit rows and their similarity score in [0, 1].

    Source: Reimers & Gurevych 2019, "Sentence-BERT", regression objective.
    """
    cosine_N = row_cosines(a_ND, b_ND)
    return F.mse_loss(cosine_N, label_N.to(cosine_N.dtype))


def cosent(a_ND: Tensor, b_ND: Tensor, label_N: Tensor, temperature: float) -> Tensor:
    """log(1 + sum of exp((s_j - s_i) / temperature) over all pairs of pairs with label_i > label_j), s the cosine.

    Only the order of the labels counts. Source: Su 2022, "CoSENT" (kexue.fm/archives/8847), eq. 7.
    """
    return _ordered(row_cosines(a_ND, b_ND), label_N, temperature)


def angle(a_ND: Tensor, b_ND: Tensor, label_N: Tensor, temperature: float) -> Tensor:
    """CoSENT on the angle between the rows as complex vectors, in place of the cosine.

    The first half of the dimensions is the real part, the second the imaginary one (an odd last dimension gets 0). The
    score is |sum of the real and the imaginary part of the quotient's numerator|, as in sentence-transformers; the
    division by the lengths is done, as the rows are unit ones.

    Source: Li & Li 2024, "AnglE-optimized Text Embeddings", eq. 5 to 8.
    """
    a_ND, b_ND = at_least_float32(a_ND), at_least_float32(b_ND)
    if a_ND.shape[1] % 2:
        a_ND, b_ND = F.pad(a_ND, (0, 1)), F.pad(b_ND, (0, 1))
    (real_a, imaginary_a), (real_b, imaginary_b) = a_ND.chunk(2, dim=1), b_ND.chunk(2, dim=1)
    real = real_a * real_b + imaginary_a * imaginary_b
    imaginary = imaginary_a * real_b - real_a * imaginary_b
    return _ordered((real + imaginary).sum(dim=1).abs(), label_N, temperature)


def contrastive(a_ND: Tensor, b_ND: Tensor, label_N: Tensor, margin: float) -> Tensor:
    """Mean of half of label * d^2 + (1 - label) * max(0, margin - d)^2, d = 1 - cosine.

    Source: Hadsell, Chopra & LeCun 2006, eq. 4; labels between 0 and 1 weight the two terms.
    """
    distance_N = 1 - row_cosines(a_ND, b_ND)
    label_N = label_N.to(distance_N.dtype)
    terms_N = label_N * distance_N.square() + (1 - label_N) * F.relu(margin - distance_N).square()
    return 0.5 * terms_N.mean()


def online_contrastive(a_ND: Tensor, b_ND: Tensor, label_N: Tensor, margin: float) -> Tensor:
    """The contrastive loss of the hard pairs only, summed: positives farther apart than the nearest negative, and
    negatives nearer than the farthest positive. Where one kind is missing, the other's mean takes its place.

    Args:
        a_ND: unit rows.
        b_ND: unit rows.
        label_N: from 0.5 on a pair is positive.
        margin: negatives farther apart than this are far enough.

    Source: sentence-transformers' OnlineContrastiveLoss, whose definition this is.
    """
    distance_N = 1 - row_cosines(a_ND, b_ND)
    positive, negative = distance_N[label_N >= 0.5], distance_N[label_N < 0.5]
    farthest = positive.max() if len(positive) else negative.mean()
    nearest = negative.min() if len(negative) else positive.mean()
    hard_positive, hard_negative = positive[positive > nearest], negative[negative < farthest]
    return hard_positive.square().sum() + F.relu(margin - hard_negative).square().sum()


def binary_cross_entropy(
    a_ND: Tensor, b_ND: Tensor, label_N: Tensor, threshold: float, temperature: float | Tensor
) -> Tensor:
    """Binary classification on the cosine: cross-entropy of sigmoid((cosine - threshold) / temperature) and the label.

    Source: Zhai et al. 2023, "SigLIP", eq. 1, for given pairs instead of all of a batch, its bias as a threshold.
    """
    logits_N = (row_cosines(a_ND, b_ND) - threshold) / temperature
    return F.binary_cross_entropy_with_logits(logits_N, label_N.to(logits_N.dtype))


def _ordered(score_N: Tensor, label_N: Tensor, temperature: float) -> Tensor:
    """log(1 + sum of exp((score_j - score_i) / temperature) over label_i > label_j)."""
    scaled_N = score_N / temperature
    difference_NN = scaled_N[None, :] - scaled_N[:, None]
    wrong_way = difference_NN[label_N[:, None] > label_N[None, :]]
    return torch.logsumexp(torch.cat([torch.zeros_like(scaled_N[:1]), wrong_way]), dim=0)
