"""The loss_fn where LoRA trains beside the head: on the image tower, on the texts' model, or on both. As
`image_objective`, but what trains is computed anew at every step, in chunks whose activations fit in memory.

Legend: N images of the step, M texts of the step, n of a chunk, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.configs import RunConfig
from acclimate.core.batching import step_seed
from acclimate.core.lora import held
from acclimate.core.losses.temperature import learned_temperature
from acclimate.errors import UsageError
from acclimate.models.image_encoder import BATCH_IMAGES, ImageEncoder, SomePictures
from acclimate.models.image_towers import TransformersTower
from acclimate.models.projection import ProjectionHead, project
from acclimate.training.fit import LossFn, StepResult
from acclimate.training.gradcache import Encode, activation_bytes_per_token, chunked_backward
from acclimate.training.image_objective import (
    LOWEST_TEMPERATURE,
    TEMPERATURE,
    ImageExamples,
    both_directions,
    drawn,
    features_of,
)
from acclimate.training.schedule import TaskSchedule
from acclimate.training.trained_texts import Chunk, TrainedTexts, activation_bytes


@dataclass(frozen=True, slots=True, eq=False)
class TowerStep:
    """What a step computes with.

    Attributes:
        head: behind the tower, in training.
        encoder: of the tower that carries LoRA; None: images have the features of a frozen one.
        pictures: bytes of all images.
        rows: numbers of the training images among them, in the order of `examples`.
        texts: what encodes texts, where it trains, too; None: their vectors stay.
    """

    head: ProjectionHead
    encoder: ImageEncoder | None
    pictures: Sequence[bytes]
    rows: NDArray[np.int64]
    texts: TrainedTexts | None

    @property
    def models(self) -> list[nn.Module]:
        """Those that carry LoRA, each once."""
        image = None if self.encoder is None else _tower(self.encoder).model
        texts = None if self.texts is None else self.texts.model
        return list(dict.fromkeys(model for model in (image, texts) if model is not None))

    def vectors(self, numbers: NDArray[np.int64], features_NF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors [N, D] of some images, by what has been trained so far; of a frozen tower by its features."""
        if self.encoder is None:
            return project(self.head, features_NF[numbers])
        return project(self.head, self.encoder.features(SomePictures(self.pictures, numbers.tolist())))


def tower_objective(
    parts: TowerStep,
    examples: ImageExamples,
    schedule: TaskSchedule,
    config: RunConfig,
    trainable: Mapping[str, nn.Parameter],
) -> LossFn:
    """Make the loss of a step: InfoNCE both ways, as in `image_objective`.

    Args:
        parts: what computes images and texts.
        examples: `features_NF` is read where the tower is frozen, `text_TD` where the texts are.
        schedule: which images a step has.
        config: `images.image_negatives`, `train.activation_memory_gb`.
        trainable: of head, temperature and LoRA.
    """
    device = parts.head.mean_F.device
    text_TD = torch.from_numpy(np.array(examples.text_TD)).to(device)
    memory = activation_bytes(config.train, device)
    cut = None if parts.encoder is None else _image_chunks(_tower(parts.encoder), memory)
    temperature = trainable[TEMPERATURE]
    # What the loss depends on besides the vectors that are computed chunk by chunk.
    others = [temperature, *(parts.head.parameters() if parts.encoder is None else ())]

    def loss_fn(step: int) -> StepResult:
        rows = schedule.batch(step)
        draw, seed = np.random.default_rng(step_seed(schedule.seed, step)), step_seed(schedule.seed, step, 1)
        texts_M, target_N, positive_NM = drawn(examples, rows, config.images.image_negatives, draw)
        target, positive = torch.from_numpy(target_N).to(device), torch.from_numpy(positive_NM).to(device)
        pixels = None if parts.encoder is None else parts.encoder.pixels(parts.pictures, parts.rows[rows].tolist())
        images = 0 if pixels is None else len(rows)  # computed here, before the texts
        chunks = [] if cut is None else cut(images)
        if parts.texts is not None:
            chunks += [Chunk(chunk.places + images, chunk.memory) for chunk in parts.texts.chunks(texts_M)]

        def encode(chunk: np.ndarray) -> Tensor:
            if pixels is not None and parts.encoder is not None and chunk[0] < images:
                found: Tensor = parts.head(_tower(parts.encoder).pooled(pixels[chunk]))
                return found
            assert parts.texts is not None  # there are texts among the chunks
            return parts.texts.forward(texts_M[chunk - images])

        def loss_of(vectors: Tensor) -> Tensor:
            if pixels is None:
                torch.manual_seed(seed)  # dropout
                image_ND = parts.head(features_of(examples, rows).to(device))
            else:
                image_ND = vectors[:images]
            own = text_TD[torch.from_numpy(texts_M).to(device)] if parts.texts is None else vectors[images:]
            logits_NM = image_ND @ own.T / learned_temperature(temperature, LOWEST_TEMPERATURE)
            return both_directions(logits_NM, positive, target)

        blank_ND = torch.zeros(sum(len(chunk.places) for chunk in chunks), text_TD.shape[1], device=device)
        loss = _backward(parts, encode, loss_of, blank_ND, chunks, memory, others, seed)
        now = learned_temperature(temperature.detach(), LOWEST_TEMPERATURE)
        return StepResult(loss, len(rows), metrics={"temperature": now})

    return loss_fn


def _backward(
    parts: TowerStep,
    encode: Encode,
    loss_of: Callable[[Tensor], Tensor],
    blank_ND: Tensor,
    chunks: Sequence[Chunk],
    memory: float,
    others: Sequence[nn.Parameter],
    seed: int,
) -> float | Tensor:
    """`gradcache.chunked_backward` with head and models in training; the models are this thread's that long."""
    parts.head.train()
    with ExitStack() as stack:
        for model in parts.models:
            stack.enter_context(held(model))
            model.train()
        loss = chunked_backward(
            encode,
            [chunk.places for chunk in chunks],
            loss_of,
            blank_ND,
            tokens=[chunk.memory for chunk in chunks],
            max_tokens=memory,
            seed_of=lambda chunk: step_seed(seed, chunk),
            parameters=others,
        )
        for model in parts.models:
            model.eval()
    return loss


def _tower(encoder: ImageEncoder) -> TransformersTower:
    assert isinstance(encoder.tower, TransformersTower)  # only such a tower carries LoRA
    return encoder.tower


def _image_chunks(tower: TransformersTower, memory: float) -> Callable[[int], list[Chunk]]:
    """Make the function that cuts so many images.

    Raises:
        UsageError: how much memory an image takes is not known of this kind of tower.
    """
    model: Any = tower.model
    vision = getattr(model.config, "vision_config", model.config)
    if not all(hasattr(vision, name) for name in ("num_hidden_layers", "hidden_size", "image_size", "patch_size")):
        raise UsageError(
            f"--image-lora: {tower.id} ({model.config.model_type}) is no vision transformer", possible="CLIP, ViT …"
        )
    patches = (int(vision.image_size) // int(vision.patch_size)) ** 2 + 1
    per_image = patches * activation_bytes_per_token(vision, 4, checkpointing=False)
    most = int(max(1, min(BATCH_IMAGES, memory // per_image)))

    def cut(images: int) -> list[Chunk]:
        places = (np.arange(at, min(at + most, images)) for at in range(0, images, most))
        return [Chunk(chunk, per_image * len(chunk)) for chunk in places]

    return cut
