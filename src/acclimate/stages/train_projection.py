"""`train` of a projection: images' features -> vectors in the space of the texts, which stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.data.images.dataset import ImageDataset
from acclimate.errors import UsageError
from acclimate.files import hash_config, hash_folder, work_folder
from acclimate.mining.image_negatives import NEGATIVES_FILE, read_mined
from acclimate.models.image_encoder import ImageEncoder
from acclimate.models.projection import OFFSETS, Projection, save_projection
from acclimate.ownership import check_replaceable
from acclimate.runs.images import TextVectors, image_features, image_model, open_images, text_encoder, text_vectors
from acclimate.runs.records import not_metrics
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
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
"""Those of LoRA, where it is put on a tower."""


def train_projection(
    images: Path, negatives: Path | None, out: Path, config: RunConfig, tower: ImageEncoder
) -> Mapping[str, Any]:
    """Train a projection. Started again after a kill, it goes on where it was.

    Args:
        images: a folder that `prepare_images` wrote.
        negatives: a folder that `mine_images` wrote, if there is one.
        out: `RUN/projection`; the progress is in `RUN/projection_metrics.jsonl`.
        config: the whole run: its `images` and `train` sections and the texts' model.
        tower: the frozen image tower.

    Returns:
        what `out/report.json` holds.

    Raises:
        DataError: there is no image to train on.
        UsageError: several processes: a projection is trained by one, in seconds.
        AcclimateError: the loss is not finite.
        Interrupted: ctrl-C; a second start goes on from the last checkpoint.
    """
    if processes.count() > 1:
        raise UsageError(
            f"{processes.count()} processes train a projection",
            fix="Start one: features are computed once, and cached.",
        )
    run, encoder, own = RunFolder(out.parent), text_encoder(RunFolder(out.parent), config, tower), asdict(config.images)
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
        check_replaceable(run.projection_metrics, not_metrics)
        trained = train_head(world, checkpoints(out), run.projection_metrics)
        offsets = offsets_of(world, work_folder(out) / "offset")
        pictures.close()

        def write(folder: Path) -> Mapping[str, Any]:
            training = _report(trained, dataset) | offsets
            save_projection(folder, _projection(trained, tower, vectors, training))
            return {"train": training}

        return Work(write)

    return step("train the projection", out, settings, inputs, make, seconds="train_projection_s", alone=True)


def _projection(trained: Trained, tower: ImageEncoder, vectors: TextVectors, training: Mapping[str, Any]) -> Projection:
    lora, space = trained.lora, vectors.space
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
