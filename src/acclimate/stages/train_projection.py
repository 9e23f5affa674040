"""`train` of a projection: images' features -> vectors in the space of the texts, which stays as it is."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.data.images.dataset import ImageDataset
from acclimate.errors import DataError, UsageError
from acclimate.evaluation.image_measures import class_vectors, trained_offset
from acclimate.files import hash_config, hash_folder, work_folder
from acclimate.mining.image_negatives import NEGATIVES_FILE, read_mined
from acclimate.models.image_encoder import ImageEncoder
from acclimate.models.projection import OFFSET, Projection, ProjectionHead, project, save_projection
from acclimate.ownership import check_replaceable
from acclimate.progress import say
from acclimate.runs.images import (
    TextVectors,
    image_features,
    image_model,
    numbered_texts,
    open_images,
    text_encoder,
    text_vectors,
)
from acclimate.runs.records import not_metrics
from acclimate.runs.run_folder import METRICS_FILE, RunFolder
from acclimate.runs.step import Work, step
from acclimate.training.checkpoint import Progress
from acclimate.training.fit import Selection, fit, training_numbers
from acclimate.training.image_objective import ImageExamples, image_objective, trainable_parameters
from acclimate.training.schedule import TaskSchedule
from acclimate.training.setup import NO_DEV, checkpoints, evaluation_steps

NEAREST = "nearest text"
"""The score on dev: the share of dev images whose nearest text is one of their own."""
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
)
"""The settings of images on which a projection depends."""
OF_LOOP = ("warmup_fraction", "max_grad_norm", "eval_steps", "patience")
"""Those of the loop that is every training's."""


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
    run, encoder, own = RunFolder(out.parent), text_encoder(RunFolder(out.parent), config), asdict(config.images)
    image_model(config)  # recorded below, so that whoever loads the projection finds the tower
    loop = {name: value for name, value in asdict(config.train).items() if name in OF_LOOP}
    settings = {"images": {name: own[name] for name in OF_TRAINING}, "train": loop, "seed": config.seed}
    inputs = {"images": hash_folder(images), "texts": encoder.fingerprint, "tower": tower.tower.fingerprint}
    if negatives is not None:
        inputs["negatives"] = hash_folder(negatives)
    identity = hash_config({"config": settings, "inputs": inputs})

    def make() -> Work[Mapping[str, Any]]:
        dataset, pictures = open_images(images)
        features_NF = image_features(run, dataset, pictures, tower)
        pictures.close()
        vectors = text_vectors(encoder, [text.text for text in dataset.texts])
        mined = {} if negatives is None else read_mined(negatives / NEGATIVES_FILE)
        world = _World(dataset, features_NF, vectors, mined, config, identity)
        check_replaceable(run.projection_metrics, not_metrics)
        head, state, schedule = _fit(world, checkpoints(out), run.projection_metrics)
        offset = _offset(world, work_folder(out) / "offset")

        def write(folder: Path) -> Mapping[str, Any]:
            training = _report(state, schedule, head, dataset) | offset
            save_projection(folder, _projection(head, tower, vectors, training))
            return {"train": training}

        return Work(write)

    return step("train the projection", out, settings, inputs, make, seconds="train_projection_s", alone=True)


def _projection(
    head: ProjectionHead, tower: ImageEncoder, vectors: TextVectors, training: Mapping[str, Any]
) -> Projection:
    return Projection(
        head=head,
        tower_id=tower.tower.id,
        tower_sha256=tower.tower.sha256,
        tower_fingerprint=tower.tower.fingerprint,
        space=vectors.space,
        metrics={name: training[name] for name in ("steps", "best_step", "best_score", OFFSET) if name in training},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _World:
    """What a head is trained on."""

    dataset: ImageDataset
    features_NF: NDArray[np.float32]
    vectors: TextVectors
    mined: Mapping[int, list[int]]
    config: RunConfig
    identity: str


def _offset(world: _World, folder: Path) -> dict[str, float]:
    """What to take off the cosines of trained classes, by a head that a quarter of them was held out of.

    {} for captions, and where there are too few classes, or no dev images of the others.
    """
    dataset = world.dataset
    trained = sorted({item.group for item in dataset.items if item.split == "train"})
    pseudo = set(random.Random(f"offset {world.config.seed}").sample(trained, len(trained) // 4))
    kept = [item.group not in pseudo for item in dataset.items]
    dev = [row for row in dataset.rows("dev").tolist() if kept[row] and dataset.items[row].group in trained]
    if dataset.kind != "classes" or not pseudo or not dev:
        return {}
    unseen = [row for row in dataset.rows("train").tolist() if not kept[row]]
    items = [
        replace(item, split="test") if item.split == "train" and not keep else item
        for item, keep in zip(dataset.items, kept, strict=True)
    ]
    less = replace(world, dataset=replace(dataset, items=items), identity=f"{world.identity} offset")
    head, _, _ = _fit(less, folder / "checkpoints", folder / METRICS_FILE)
    # Of every trained class, whether dev has images of it or not.
    texts = dataset.texts_of(dataset.rows("train").tolist())
    group_T = np.array([dataset.texts[text].group for text in texts])
    class_CD = class_vectors(world.vectors.document_TD[texts], group_T, trained)
    rows = np.array([*dev, *unseen])
    own_N = np.searchsorted(trained, dataset.group_N[rows])
    trained_C = np.array([group not in pseudo for group in trained])
    return {OFFSET: trained_offset(project(head, world.features_NF[rows]), class_CD, own_N, trained_C)}


def _fit(world: _World, folder: Path, metrics: Path) -> tuple[ProjectionHead, Progress, TaskSchedule]:
    dataset, features_NF, vectors, config = world.dataset, world.features_NF, world.vectors, world.config
    rows, images = dataset.rows("train"), config.images
    if not len(rows):
        raise DataError("there is no image to train on", fix="Look at the splits of the data.")
    torch.manual_seed(config.seed)
    sizes = (features_NF.shape[1], vectors.document_TD.shape[1])
    head = ProjectionHead(*sizes, images.head, images.head_width, images.head_dropout)
    head.standardise_by(torch.from_numpy(np.array(features_NF[rows])))
    schedule = TaskSchedule(
        epochs=images.image_epochs,
        seed=config.seed,
        learning_rate=images.image_learning_rate,
        warmup_fraction=config.train.warmup_fraction,
        examples=len(rows),
        batch_size=images.image_batch_size,
    )
    trainable = trainable_parameters(head, images)
    examples = training_examples(dataset, rows, features_NF, vectors, world.mined)
    metrics.parent.mkdir(parents=True, exist_ok=True)
    selection = _selection(dataset, features_NF, vectors, head, evaluation_steps(config.train, schedule.steps))
    state = fit(
        trainable,
        image_objective(head, examples, schedule, images, trainable),
        schedule,
        replace(config.train, weight_decay=images.image_weight_decay),
        selection=selection,
        folder=folder,
        metrics=metrics,
        identity=world.identity,
        dtype="float32",
    )
    if selection is None:
        say(NO_DEV)
    return head.eval(), state, schedule


def training_examples(
    dataset: ImageDataset,
    rows: np.ndarray,
    features_NF: np.ndarray,
    vectors: TextVectors,
    mined: Mapping[int, list[int]],
) -> ImageExamples:
    """What a projection is trained on: every text in both roles, where its vectors differ."""
    own, texts = numbered_texts(dataset, rows)
    known = set(own.tolist())
    kept = [[text for text in mined.get(int(row), []) if text in known] for row in rows]
    negatives = [np.searchsorted(own, numbers) for numbers in kept]
    text_TD = vectors.document_TD[own]
    if not vectors.same:
        text_TD = np.concatenate([text_TD, vectors.query_TD[own]])
        texts = [np.concatenate([numbers, numbers + len(own)]) for numbers in texts]
        negatives = [np.concatenate([numbers, numbers + len(own)]) for numbers in negatives]
    return ImageExamples(np.asarray(features_NF[rows]), text_TD, texts, negatives)


def _selection(
    dataset: ImageDataset, features_NF: np.ndarray, vectors: TextVectors, head: ProjectionHead, every: int
) -> Selection | None:
    """How dev images choose the best step; None where there are none."""
    rows = dataset.rows("dev")
    if not len(rows):
        return None
    known, _ = numbered_texts(dataset, np.sort(np.concatenate([rows, dataset.rows("train")])))
    own = [set(np.searchsorted(known, dataset.items[row].texts).tolist()) for row in rows]
    dev_NF, text_TD = np.asarray(features_NF[rows]), vectors.document_TD[known]

    def evaluate(_: int) -> dict[str, float]:
        nearest = (project(head, dev_NF) @ text_TD.T).argmax(1)
        return {NEAREST: float(np.mean([int(place) in texts for place, texts in zip(nearest, own, strict=True)]))}

    return Selection(evaluate=evaluate, metric=NEAREST, every=every)


def _report(state: Progress, schedule: TaskSchedule, head: ProjectionHead, dataset: ImageDataset) -> dict[str, Any]:
    parameters = dict(head.named_parameters())
    numbers = training_numbers(state, schedule, parameters, sum(tensor.numel() for tensor in parameters.values()))
    tokens = {"tokens", "tokens_per_s"}
    return {
        "images": len(dataset.rows("train")),
        "images_per_s": numbers["tokens_per_s"],
        **{name: value for name, value in numbers.items() if name not in tokens},
        "base_score": state.base_score,
    }
