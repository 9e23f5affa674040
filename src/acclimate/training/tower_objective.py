"""The loss_fn where the image tower trains, too, and maybe the text tower beside it: as `image_objective`, but images
and texts are computed anew at every step, in chunks whose activations fit in memory.

Legend: N images of the step, M texts of the step, n of a chunk, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from acclimate.models.devices import activation_gb
from acclimate.models.image_encoder import BATCH_IMAGES, ImageEncoder, SomePictures
from acclimate.models.image_text import ImageTexts
from acclimate.models.image_towers import TransformersTower
from acclimate.models.projection import ProjectionHead, project
from acclimate.training.fit import LossFn, StepResult
from acclimate.training.gradcache import Encode, activation_bytes_per_token, chunked_backward
from acclimate.training.image_objective import LOWEST_TEMPERATURE, TEMPERATURE, ImageExamples, both_directions, drawn
from acclimate.training.schedule import TaskSchedule


@dataclass(frozen=True, slots=True, eq=False)
class TowerStep:
    """What a step computes with.

    Attributes:
        head: behind the tower, in training.
        encoder: of the tower that carries LoRA.
        pictures: bytes of all images.
        rows: numbers of the training images among them, in the order of `examples`.
        texts: the text tower, where it trains, too.
        words: the texts that `examples` numbers.
    """

    head: ProjectionHead
    encoder: ImageEncoder
    pictures: Sequence[bytes]
    rows: NDArray[np.int64]
    texts: ImageTexts | None
    words: Sequence[str]

    @property
    def tower(self) -> TransformersTower:
        """The tower that trains."""
        assert isinstance(self.encoder.tower, TransformersTower)  # only such a tower carries LoRA
        return self.encoder.tower

    def vectors(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Unit vectors [N, D] of some images, by what has been trained so far."""
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
        examples: `features_NF` is read where only the text tower trains, `text_TD` where it does not.
        schedule: which images a step has.
        config: `images.image_negatives`, `train.activation_memory_gb`.
        trainable: of head, temperature and LoRA.
    """
    tower, device = parts.tower, parts.tower.device
    text_TD = torch.from_numpy(np.array(examples.text_TD)).to(device)
    image_tokens, max_tokens = _budget(tower, config)
    per_chunk = int(max(1, min(BATCH_IMAGES, max_tokens // image_tokens)))
    temperature = trainable[TEMPERATURE]
    trains_images = config.images.image_lora != "texts" or len(parts.head.layers) > 0

    def loss_fn(step: int) -> StepResult:
        rows = schedule.batch(step)
        draw = np.random.default_rng(step_seed(schedule.seed, step))
        texts_M, target_N, positive_NM = drawn(examples, rows, config.images.image_negatives, draw)
        target, positive = torch.from_numpy(target_N).to(device), torch.from_numpy(positive_NM).to(device)
        pixels = parts.encoder.pixels(parts.pictures, parts.rows[rows].tolist()) if trains_images else None
        fixed_ND = None if trains_images else torch.from_numpy(project(parts.head, examples.features_NF[rows]))
        words = [parts.words[text] for text in texts_M] if parts.texts is not None else []
        images = len(rows) if pixels is not None else 0  # computed here, before those of the words

        def encode(chunk: np.ndarray) -> Tensor:
            if pixels is not None and chunk[0] < images:
                found: Tensor = parts.head(tower.pooled(pixels[chunk]))
                return found
            assert parts.texts is not None  # there are words
            return parts.texts.forward([words[place - images] for place in chunk])

        def loss_of(vectors: Tensor) -> Tensor:
            image_ND = vectors[:images] if fixed_ND is None else fixed_ND.to(device)
            own = vectors[images:] if words else text_TD[torch.from_numpy(texts_M).to(device)]
            logits_NM = image_ND @ own.T / learned_temperature(temperature, LOWEST_TEMPERATURE)
            return both_directions(logits_NM, positive, target)

        budget = (_chunks(images, len(words), per_chunk), image_tokens, max_tokens)
        blank_ND = torch.zeros(images + len(words), text_TD.shape[1], device=device)
        loss = _backward(parts, encode, loss_of, blank_ND, budget, temperature, step_seed(schedule.seed, step, 1))
        now = learned_temperature(temperature.detach(), LOWEST_TEMPERATURE)
        return StepResult(loss, len(rows), metrics={"temperature": now})

    return loss_fn


def _backward(
    parts: TowerStep,
    encode: Encode,
    loss_of: Callable[[Tensor], Tensor],
    blank_ND: Tensor,
    budget: tuple[list[np.ndarray], int, float],
    temperature: nn.Parameter,
    seed: int,
) -> float | Tensor:
    """`gradcache.chunked_backward` with head and towers in training; the model is this thread's that long."""
    chunks, tokens, max_tokens = budget
    model = parts.tower.model
    parts.head.train()
    with held(model):
        model.train()
        loss = chunked_backward(
            encode,
            chunks,
            loss_of,
            blank_ND,
            tokens=[tokens * len(chunk) for chunk in chunks],
            max_tokens=max_tokens,
            seed_of=lambda chunk: step_seed(seed, chunk),
            parameters=[temperature],
        )
        model.eval()
    return loss


def _chunks(images: int, words: int, size: int) -> list[np.ndarray]:
    """Positions of the images, then of the words; none of both is in one chunk."""
    ends = ((0, images), (images, images + words))
    return [np.arange(at, min(at + size, end)) for start, end in ends for at in range(start, end, size)]


def _budget(tower: TransformersTower, config: RunConfig) -> tuple[int, float]:
    """Patches of an image, and how many patches' activations fit in memory."""
    model: Any = tower.model
    vision = getattr(model.config, "vision_config", model.config)
    if not all(hasattr(vision, name) for name in ("num_hidden_layers", "hidden_size", "image_size", "patch_size")):
        raise UsageError(
            f"--image-lora: {tower.id} ({model.config.model_type}) is no vision transformer", possible="CLIP, ViT …"
        )
    patches = (int(vision.image_size) // int(vision.patch_size)) ** 2 + 1
    memory = (config.train.activation_memory_gb or activation_gb(tower.device)) * 1e9
    return patches, memory / activation_bytes_per_token(vision, 4, checkpointing=False)
