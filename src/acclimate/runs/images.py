"""What the stages about images share: a run's images, their cached features, and the vectors of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acclimate.configs import RunConfig
from acclimate.data.images.dataset import ImageBytes, ImageDataset, load_image_dataset
from acclimate.data.images.pictures import require_pillow
from acclimate.data.images.video import normalise
from acclimate.data.records import BadRowError
from acclimate.errors import DataError, ModelError, StorageError, UsageError
from acclimate.files import open_input
from acclimate.models.encoder import Encoder
from acclimate.models.image_encoder import ImageEncoder, cached_features
from acclimate.models.image_text import ImageTexts
from acclimate.models.image_towers import TransformersTower
from acclimate.models.projection import ProjectedImages
from acclimate.models.text_encoder import TextEncoder
from acclimate.runs.opening import load_current
from acclimate.runs.resolve import adapter_folder, load, load_pair, load_whole, refuse_map
from acclimate.runs.run_folder import RunFolder
from acclimate.text_use import SpaceId
from acclimate.types import Role

TEXTS_FOLDER = "texts"
"""The folder in a projection's with the adapter of the texts' model, where LoRA was trained on it, too."""


def image_model(config: RunConfig) -> str:
    """Name the image encoder that the settings give.

    Raises:
        UsageError: they give none.
    """
    if config.images.image_model is None:
        raise UsageError(
            "no image model is given",
            possible="--image-model FOLDER: a vision model of transformers (CLIP, DINOv2, ViT …), or an ONNX graph",
        )
    return config.images.image_model


def text_encoder(run: RunFolder, config: RunConfig, encoder: ImageEncoder) -> TextEncoder | ImageTexts:
    """Load what encodes the texts beside images: the run's adapter, if there is one, else its model; frozen.

    Where the settings name one model for both (a CLIP, a SigLIP), it is the text tower of the image model.

    Raises:
        ModelError: it has none; or the texts' model cannot be found or used.
    """
    if config.model is not None and config.model == config.images.image_model:
        return ImageTexts.of(encoder.tower)
    return load_current(run.adapter, config.base_model, **config.loading)


def adapted_texts(texts: TextEncoder | ImageTexts, images: ProjectedImages) -> TextEncoder | ImageTexts:
    """Return the texts' encoder with what was trained on the image model's text tower, where something was."""
    lora, tower = images.projection.lora, images.encoder.tower
    if not isinstance(texts, ImageTexts) or lora is None:
        return texts
    assert isinstance(tower, TransformersTower)  # it carries LoRA
    return ImageTexts(tower, lora.text_sha256)


def trains_text_model(config: RunConfig) -> bool:
    """Whether LoRA is trained on an embedding model of texts, which is another one than the image model."""
    return config.images.image_lora in ("texts", "both") and config.base_model != config.images.image_model


def texts_to_train(config: RunConfig) -> tuple[Encoder, Encoder]:
    """Load the texts' model that LoRA is put on: as it is, and as the training begins, with `start_adapter` where one
    is given; both over the same weights.

    Raises:
        UsageError: the model is an export; `start_adapter` is for queries only.
        ModelError: `start_adapter` leads to no adapter; or the model cannot be found or used, or has two transformers.
    """
    if config.train.start_adapter is not None:
        return _base_and_start(config.train.start_adapter, config)
    model = load_whole(config.base_model, **config.loading)
    if not isinstance(model, Encoder):
        raise UsageError(f"--image-lora {config.images.image_lora}: {config.model} is an export, which does not train")
    model.require_one_transformer()
    return model, model


def _base_and_start(name: str, config: RunConfig) -> tuple[Encoder, Encoder]:
    refuse_map(name, "trained on")
    if adapter_folder(name) is None:
        raise ModelError(f"start_adapter: {name} holds no adapter", fix="Give a run, or its adapter folder.")
    base, start = load_pair(name, base=config.model, **config.loading)
    if start.adapter is not None and start.adapter.sides == "query":
        raise UsageError(
            f"start_adapter: {name} adapts queries only, and LoRA beside images changes documents, too",
            fix="Leave --image-lora out: images are then trained into the space of its documents, which stays.",
        )
    return base, start


def texts_before(run: RunFolder, config: RunConfig, encoder: ImageEncoder) -> TextEncoder | ImageTexts:
    """Load what encodes the texts when a training on images begins: as `text_encoder`, unless it is to be trained."""
    return texts_to_train(config)[1] if trains_text_model(config) else text_encoder(run, config, encoder)


def texts_after(projection: Path, config: RunConfig, images: ProjectedImages) -> TextEncoder | ImageTexts:
    """Load what encodes the texts beside a projection: what was trained with it, where something was.

    Args:
        projection: its folder, in that of the run.
        config: as of `text_encoder`.
        images: the projection.
    """
    if (own := projection / TEXTS_FOLDER).is_dir():
        return load(own, base=config.base_model, **config.loading)
    return adapted_texts(text_encoder(RunFolder(projection.parent), config, images.encoder), images)


@dataclass(frozen=True, slots=True, eq=False)
class TextVectors:
    """Unit vectors of a dataset's texts, in both roles."""

    space: SpaceId
    fingerprint: str
    document_TD: NDArray[np.float32]
    query_TD: NDArray[np.float32]
    same: bool
    """Whether a text has the same vector in both roles: the model has no prompts."""
    own_texts: ImageTexts | None = None
    """What encoded them, where it is the text tower of the image model."""

    def of(self, role: Role) -> NDArray[np.float32]:
        """The vectors of a role."""
        return self.query_TD if role == "query" else self.document_TD


def text_vectors(encoder: TextEncoder | ImageTexts, texts: Sequence[str]) -> TextVectors:
    """Encode texts as documents and as queries."""
    document_TD = encoder.encode(texts, "document", label="texts")
    same = encoder.role_fingerprint("query") == encoder.role_fingerprint("document")
    query_TD = document_TD if same else encoder.encode(texts, "query", label="texts")
    same = same or bool(np.array_equal(document_TD, query_TD))
    own = encoder if isinstance(encoder, ImageTexts) else None
    return TextVectors(encoder.space, encoder.fingerprint, document_TD, query_TD, same, own)


def open_images(folder: Path) -> tuple[ImageDataset, ImageBytes]:
    """Read a run's prepared images.

    Raises:
        StorageError: there are none, or they are damaged.
    """
    dataset = load_image_dataset(folder)
    return dataset, ImageBytes(folder, dataset.items)


def open_projection(run: Path, config: RunConfig) -> ProjectedImages:
    """Load a run's projection and its image tower.

    Raises:
        MissingExtraError: Pillow is not installed.
        StorageError: the run has none.
        ModelError: the tower is nowhere to be found, or is another one.
    """
    require_pillow()
    folder = RunFolder(run).projection
    if not folder.is_dir():
        raise StorageError(f"{run} holds no projection of images", fix=f"Train one: {train_projection(run)}")
    return ProjectedImages.open(folder, image_model=config.images.image_model, device=config.device)


def train_projection(run: Path) -> str:
    """The command that trains a projection."""
    return f"acclimate adapt IMAGES --image-model MODEL --out {run}"


def read_picture(path: Path, config: RunConfig) -> bytes:
    """Read an image file as images of a training are read.

    Raises:
        DataError: it is missing, or cannot be used; the reason is said.
    """
    with open_input(path) as stream:
        data = stream.read()
    try:
        return normalise(data, config.images).data
    except BadRowError as error:
        raise DataError(f"{path}: {error}", fix="Give another picture.") from None


def image_features(
    run: RunFolder, dataset: ImageDataset, pictures: ImageBytes, encoder: ImageEncoder
) -> NDArray[np.float32]:
    """Features of all images of a run, computed once and memory-mapped."""
    names = [item.sha256 for item in dataset.items]
    return cached_features(encoder, pictures, names, run.cache, label="images")


def numbered_texts(dataset: ImageDataset, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The texts of some images, each once (as numbers in the dataset), and of each image their places among these."""
    own = dataset.texts_of(int(row) for row in rows)
    return own, [np.searchsorted(own, np.array(dataset.items[row].texts, np.int64)) for row in rows]
