"""`train` of a projection: images' features -> vectors in the space of the texts, which stays as it is unless LoRA is
trained on their model, too."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.data.images.dataset import ImageDataset
from acclimate.errors import UsageError
from acclimate.files import hash_config, hash_folder, work_folder
from acclimate.formats.trained_on import TrainedOn, write_trained_on
from acclimate.mining.image_negatives import NEGATIVES_FILE, read_mined
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.models.image_encoder import ImageEncoder
from acclimate.models.projection import OFFSETS, Projection, save_projection
from acclimate.ownership import check_replaceable, marker
from acclimate.runs.images import (
    TEXTS_FOLDER,
    image_features,
    image_model,
    open_images,
    text_encoder,
    text_vectors,
    texts_to_train,
    trains_text_model,
)
from acclimate.runs.records import not_metrics
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.trained_on import trained_on
from acclimate.runs.versions import in_use
from acclimate.text_use import SpaceId
from acclimate.training.fit import training_numbers
from acclimate.training.image_objective import TEMPERATURE
from acclimate.training.projection_training import Trained, World, offsets_of, train_head
from acclimate.training.setup import checkpoints

OF_TRAINING = (
    "head",
    "head_width",
    "head_dropout",
    "image_model",
    "image_epochs",
    "image_batch_size",
    "image_learning_rate",
    "image_weight_decay",
    "image_temperature",
    "image_negatives",
    "image_lora",
)
"""The settings of images on which a projection depends."""
OF_LOOP = ("warmup_fraction", "max_grad_norm", "eval_steps", "patience")
"""Those of the loop that is every training's."""
OF_LORA = ("rank", "alpha", "targets", "lora_dropout")
"""Those of LoRA, where it is trained."""
BESIDE_IMAGES = "train_texts_beside_images"
"""What marks the adapter of a run whose texts' model was trained with its images."""


def train_projection(
    images: Path, negatives: Path | None, out: Path, config: RunConfig, tower: ImageEncoder
) -> Mapping[str, Any]:
    """Train a projection. Started again after a kill, it goes on where it was.

    Args:
        images: a folder that `prepare_images` wrote.
        negatives: a folder that `mine_images` wrote, if there is one.
        out: `RUN/projection`; the progress is in `RUN/projection_metrics.jsonl`.
        config: the whole run: its `images` and `train` sections and the texts' model.
        tower: the image tower as it is.

    Returns:
        what `out/report.json` holds.

    Raises:
        DataError: there is no image to train on.
        UsageError: several processes: a projection is trained by one, in seconds.
        AcclimateError: the loss is not finite.
        Interrupted: ctrl-C; a second start goes on from the last checkpoint.
    """
    _refuse_several_processes()
    run, own, trains_texts = RunFolder(out.parent), asdict(config.images), trains_text_model(config)
    base, start = texts_to_train(config) if trains_texts else (None, None)
    encoder = start or text_encoder(run, config, tower)
    image_model(config)  # recorded below, so that whoever loads the projection finds the tower
    read = (*OF_LOOP, *OF_LORA) if config.images.image_lora else OF_LOOP
    loop = {name: value for name, value in asdict(config.train).items() if name in read}
    settings = {"images": {name: own[name] for name in OF_TRAINING}, "train": loop, "seed": config.seed}
    inputs = {"images": hash_folder(images), "texts": encoder.fingerprint, "tower": tower.tower.fingerprint}
    if negatives is not None:
        inputs["negatives"] = hash_folder(negatives)
    identity = hash_config({"config": settings, "inputs": inputs})

    def make() -> Work[Mapping[str, Any]]:
        dataset, pictures = open_images(images)
        features_NF = image_features(run, dataset, pictures, tower)
        vectors = text_vectors(encoder, [text.text for text in dataset.texts])
        mined = {} if negatives is None else read_mined(negatives / NEGATIVES_FILE)
        world = World(dataset, features_NF, vectors, mined, config, identity, tower, pictures)
        if start is not None:
            world = replace(world, text_model=base, text_start=start.adapter)
        check_replaceable(run.projection_metrics, not_metrics)
        trained = train_head(world, checkpoints(out), run.projection_metrics)
        offsets = offsets_of(world, work_folder(out) / "offset")
        pictures.close()

        def write(folder: Path) -> Mapping[str, Any]:
            training = _report(trained, dataset) | offsets
            space = vectors.space
            if base is not None and trained.texts is not None:
                space = _save_texts(folder / TEXTS_FOLDER, trained.texts, base, _told(dataset, config))
            save_projection(folder, _projection(trained, tower, space, training))
            return {"train": training}

        return Work(write)

    return step("train the projection", out, settings, inputs, make, seconds="train_projection_s", alone=True)


def _refuse_several_processes() -> None:
    if processes.count() > 1:
        raise UsageError(
            f"{processes.count()} processes train a projection",
            fix="Start one: features are computed once, and cached.",
        )


def _save_texts(folder: Path, adapter: Adapter, base: Encoder, told: TrainedOn) -> SpaceId:
    """Write the adapter of the texts' model; return the space of its vectors."""
    folder.mkdir()
    save_adapter(folder, adapter, base.source)
    write_trained_on(folder, told)
    return base.with_adapter(adapter).space


def publish_texts(projection: Path, out: Path, config: RunConfig) -> Mapping[str, Any]:
    """Make the adapter that was trained on the texts' model beside a projection the run's.

    Args:
        projection: a folder that `train_projection` wrote.
        out: `RUN/adapter`, which keeps its versions.
        config: the texts' model.

    Returns:
        what `out/report.json` holds.
    """
    texts = projection / TEXTS_FOLDER

    def make() -> Work[Mapping[str, Any]]:
        def write(folder: Path) -> Mapping[str, Any]:
            shutil.copytree(texts, folder, dirs_exist_ok=True)
            return {"trained_with": projection.name}

        return Work(write)

    settings, inputs, name = {"model": config.base_model}, {"projection": hash_folder(texts)}, "take over the adapter"
    return step(name, out, settings, inputs, make, seconds=f"{BESIDE_IMAGES}_s", alone=True, versioned=True)


def check_texts_may_train(run: RunFolder, config: RunConfig) -> None:
    """Make sure that training the texts' model would not replace an adapter that the run has for its own texts.

    Raises:
        UsageError: it would.
    """
    found = in_use(run.adapter)
    if found.is_dir() and (marker(found) or {}).get("kind") != BESIDE_IMAGES:
        raise UsageError(
            f"--image-lora {config.images.image_lora}: {run.path} has an adapter of its texts, which images would "
            "change, with the space of its index and all that was measured",
            fix=f"Train on in a run of its own: --out ANOTHER --start-adapter {run.path}; or leave the texts as they "
            "are: --image-lora image, or no LoRA",
        )


def _told(dataset: ImageDataset, config: RunConfig) -> TrainedOn:
    """The texts that the texts' model is trained on, or chosen by; and those of the adapter that it starts from."""
    rows = [*dataset.rows("train").tolist(), *dataset.rows("dev").tolist()]
    texts = {dataset.texts[text].text for text in dataset.texts_of(rows)}
    return TrainedOn.of(texts, ()) | trained_on([config.base_model, config.train.start_adapter])


def _projection(trained: Trained, tower: ImageEncoder, space: SpaceId, training: Mapping[str, Any]) -> Projection:
    lora = trained.lora
    if lora is not None and lora.text_sha256 is not None:
        space = replace(space, document_adapter=lora.text_sha256)
    return Projection(
        head=trained.head,
        lora=lora,
        tower_id=tower.tower.id,
        tower_sha256=tower.tower.sha256,
        tower_fingerprint=tower.tower.fingerprint,
        space=space,
        metrics={
            name: training[name] for name in ("steps", "best_step", "best_score", *OFFSETS.values()) if name in training
        },
    )


def _report(trained: Trained, dataset: ImageDataset) -> dict[str, Any]:
    state, weights = trained.state, {name: one for name, one in trained.trainable.items() if name != TEMPERATURE}
    numbers = training_numbers(state, trained.schedule, weights, sum(one.numel() for one in weights.values()))
    tokens = {"tokens", "tokens_per_s"}
    return {
        "images": len(dataset.rows("train")),
        "images_per_s": numbers["tokens_per_s"],
        **{name: value for name, value in numbers.items() if name not in tokens},
        "base_score": state.base_score,
    }
