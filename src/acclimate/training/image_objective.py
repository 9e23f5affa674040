"""The loss_fn of a projection: images find their texts, texts their images, among those of the step.

Legend: N images of the step, M texts of the step, F features, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.configs import ImagesConfig
from acclimate.core.batching import step_seed
from acclimate.core.losses.multi_positive import multi_positive_info_nce
from acclimate.core.losses.temperature import learned_temperature, log_excess
from acclimate.models.projection import ProjectionHead
from acclimate.training.fit import LossFn, StepResult
from acclimate.training.schedule import TaskSchedule

TEMPERATURE = "log_temperature"
LOWEST_TEMPERATURE = 0.01
"""A learned temperature stays above it, as CLIP's does."""

SAME_WORDS = 1 - 1e-5
"""Texts whose cosine is higher are the same."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageExamples:
    """What a projection is trained on.

    Attributes:
        features_NF: of the training images; may be a memory map.
        text_TD: unit vectors of all texts, by the frozen text encoder.
        texts: of each image, the numbers of its texts.
        negatives: of each image, the numbers of texts that are hard to tell from its own; maybe none.
    """

    features_NF: NDArray[np.float32]
    text_TD: NDArray[np.float32]
    texts: Sequence[NDArray[np.int64]]
    negatives: Sequence[NDArray[np.int64]]


def trainable_parameters(head: ProjectionHead, config: ImagesConfig) -> dict[str, nn.Parameter]:
    """Name what trains: the head's weights, and the temperature."""
    device = head.mean_F.device
    start = torch.tensor(log_excess(config.image_temperature, LOWEST_TEMPERATURE), device=device)
    return {**dict(head.named_parameters()), TEMPERATURE: nn.Parameter(start)}


def image_objective(
    head: ProjectionHead,
    examples: ImageExamples,
    schedule: TaskSchedule,
    config: ImagesConfig,
    trainable: Mapping[str, nn.Parameter],
) -> LossFn:
    """Make the loss of a step: InfoNCE from images to texts and from texts to images.

    Each image is trained with one of its texts, drawn anew at every step, and with `image_negatives` of its mined ones.
    Its other texts, where another image of the step brings them along, are masked; the images of a text are all its
    positives.

    Args:
        head: in training.
        examples: what it is trained on.
        schedule: which images a step has.
        config: `image_negatives`.
        trainable: as `trainable_parameters` gives it.
    """
    device = head.mean_F.device
    text_TD = torch.from_numpy(np.array(examples.text_TD)).to(device)

    def loss_fn(step: int) -> StepResult:
        rows = schedule.batch(step)
        draw = np.random.default_rng(step_seed(schedule.seed, step))
        texts_M, target_N, positive_NM = drawn(examples, rows, config.image_negatives, draw)
        torch.manual_seed(step_seed(schedule.seed, step, 1))  # dropout
        head.train()
        image_ND = head(features_of(examples, rows).to(device))
        temperature = learned_temperature(trainable[TEMPERATURE], LOWEST_TEMPERATURE)
        logits_NM = image_ND @ text_TD[torch.from_numpy(texts_M).to(device)].T / temperature
        positive = torch.from_numpy(positive_NM).to(device)
        loss = both_directions(logits_NM, positive, torch.from_numpy(target_N).to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        return StepResult(loss.detach(), len(rows), metrics={"temperature": temperature.detach()})

    return loss_fn


def features_of(examples: ImageExamples, rows: NDArray[np.int64]) -> Tensor:
    """Features [N, F] of some images, read in the order in which they lie on disk."""
    return torch.from_numpy(np.array(examples.features_NF[np.sort(rows)]))[np.argsort(np.argsort(rows))]


def both_directions(logits_NM: Tensor, positive_NM: Tensor, target_N: Tensor) -> Tensor:
    """InfoNCE from images to texts, where each image has one to find, and from texts to all their images."""
    forward = multi_positive_info_nce(logits_NM, positive_NM, target_N)
    return (forward + multi_positive_info_nce(logits_NM.T, positive_NM.T)) / 2


def drawn(
    examples: ImageExamples, rows: NDArray[np.int64], negatives: int, draw: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Draw the step's texts [M], each image's own one among them [N], and which belongs to which [N, M]."""
    chosen = np.array([draw.choice(examples.texts[row]) for row in rows], np.int64)
    hard = [
        draw.choice(own, min(negatives, len(own)), replace=False)
        for row in rows
        if negatives and len(own := examples.negatives[row])
    ]
    texts_M = np.unique(np.concatenate([chosen, *hard]))
    # The same text may be said of two classes: it is a negative of neither.
    vectors_DM = examples.text_TD[texts_M].T
    nearest = [(examples.text_TD[examples.texts[row]] @ vectors_DM).max(0) for row in rows]
    positive_NM = np.stack(nearest) > SAME_WORDS
    return texts_M, np.searchsorted(texts_M, chosen), positive_NM
