"""A projection trained once: its head, and LoRA on the towers where that is asked for; and the offset that its training
chooses on classes that it holds out of a head of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acclimate.configs import RunConfig
from acclimate.core.lora import finished_weights
from acclimate.core.lora import trainable_parameters as lora_parameters
from acclimate.data.images.dataset import ImageDataset
from acclimate.errors import DataError, UsageError
from acclimate.evaluation.image_measures import class_vectors, trained_offsets
from acclimate.models.adapter import Adapter
from acclimate.models.encoder import Encoder
from acclimate.models.image_encoder import ImageEncoder
from acclimate.models.image_text import ImageTexts
from acclimate.models.image_towers import TransformersTower
from acclimate.models.projection import OFFSETS, ProjectionHead, project
from acclimate.models.tower_lora import TowerLora, tower_layers
from acclimate.progress import say
from acclimate.runs.images import TEXTS_FOLDER, TextVectors, numbered_texts
from acclimate.runs.run_folder import METRICS_FILE
from acclimate.training.checkpoint import Progress
from acclimate.training.fit import LossFn, Selection, fit
from acclimate.training.image_objective import ImageExamples, image_objective, trainable_parameters
from acclimate.training.schedule import TaskSchedule
from acclimate.training.setup import NO_DEV, attach_lora, evaluation_steps, lora_alpha, start_training
from acclimate.training.tower_objective import TowerStep, tower_objective
from acclimate.training.trained_texts import ModelTexts, TowerTexts, TrainedTexts

NEAREST = "nearest text"
"""The score on dev: the share of dev images whose nearest text is one of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """What a head is trained on.

    Attributes:
        dataset: images, texts, splits.
        features_NF: of all images, by the tower as it is; may be a memory map.
        vectors: of all texts, by their model as it is.
        mined: hard negatives: number of an image -> numbers of texts.
        config: the whole run.
        identity: hash of everything that the training depends on.
        encoder: the tower.
        pictures: bytes of all images.
        text_model: the texts' model as it is, where LoRA is trained on it and it is no tower of the image model.
        text_start: the adapter that this LoRA starts from.
    """

    dataset: ImageDataset
    features_NF: NDArray[np.float32]
    vectors: TextVectors
    mined: Mapping[int, list[int]]
    config: RunConfig
    identity: str
    encoder: ImageEncoder
    pictures: Sequence[bytes]
    text_model: Encoder | None = None
    text_start: Adapter | None = None


class Carriers(NamedTuple):
    """What carries LoRA that trains."""

    tower: TransformersTower | None
    """The image model, on either of its sides."""
    texts: Encoder | None
    """The texts' model, where it is another one."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Name -> matrix; those of the texts' model are told from the tower's, whose layers may be called the same."""
        image = {} if self.tower is None else lora_parameters(self.tower.model)
        texts = {} if self.texts is None else lora_parameters(self.texts.model)
        return image | {f"{TEXTS_FOLDER}.{name}": matrix for name, matrix in texts.items()}


class Trained(NamedTuple):
    """What a training made."""

    head: ProjectionHead
    lora: TowerLora | None
    texts: Adapter | None
    """What was trained on the texts' model."""
    state: Progress
    schedule: TaskSchedule
    trainable: dict[str, nn.Parameter]


def train_head(world: World, folder: Path, metrics: Path) -> Trained:
    """Train a head, and LoRA where `images.image_lora` asks for it.

    Args:
        world: what it is trained on.
        folder: gets the checkpoints.
        metrics: the JSONL file of the progress.

    Raises:
        DataError: there is no image to train on.
        UsageError: a head that does not fit; LoRA on a tower that cannot have it; nothing that would train.
        AcclimateError: the loss is not finite.
        Interrupted: ctrl-C; a second start goes on from the last checkpoint.
    """
    dataset, images = world.dataset, world.config.images
    rows = dataset.rows("train")
    if not len(rows):
        raise DataError("there is no image to train on", fix="Look at the splits of the data.")
    if images.head == "none" and images.image_lora is None:
        raise UsageError("--head none without --image-lora: nothing would be trained", possible="linear, mlp")
    carriers = _with_new_lora(world) if images.image_lora else None
    torch.manual_seed(world.config.seed)
    sizes = (world.features_NF.shape[1], world.vectors.document_TD.shape[1])
    head = ProjectionHead(*sizes, images.head, images.head_width, images.head_dropout)
    head.standardise_by(torch.from_numpy(np.array(world.features_NF[rows])))
    schedule = TaskSchedule(
        epochs=images.image_epochs,
        seed=world.config.seed,
        learning_rate=images.image_learning_rate,
        warmup_fraction=world.config.train.warmup_fraction,
        examples=len(rows),
        batch_size=images.image_batch_size,
    )
    examples = training_examples(dataset, rows, world.features_NF, world.vectors, world.mined)
    every = evaluation_steps(world.config.train, schedule.steps)
    if carriers is None:
        trainable = trainable_parameters(head, images)
        loss_fn: LossFn = image_objective(head, examples, schedule, images, trainable)
        selection = _selection(world, every, lambda dev: project(head, world.features_NF[dev]), None)
    else:
        parts = _step_parts(world, head, carriers, rows)
        trainable = trainable_parameters(head, images) | carriers.parameters()
        loss_fn = tower_objective(parts, examples, schedule, world.config, trainable)
        selection = _selection(world, every, lambda dev: parts.vectors(dev, world.features_NF), parts.texts)
    metrics.parent.mkdir(parents=True, exist_ok=True)
    state = fit(
        trainable,
        loss_fn,
        schedule,
        replace(world.config.train, weight_decay=images.image_weight_decay),
        selection=selection,
        folder=folder,
        metrics=metrics,
        identity=world.identity,
        dtype="float32",
    )
    if selection is None:
        say(NO_DEV)
    lora, texts = (None, None) if carriers is None else _finished(carriers, world, state)
    return Trained(head.eval().cpu(), lora, texts, state, schedule, trainable)


def offsets_of(world: World, folder: Path) -> dict[str, float]:
    """Choose what to take off the cosines of trained classes, by a head that a quarter of them was held out of.

    {} for captions, where there are too few classes or no dev images of the others, and beside LoRA: it would train
    the tower twice.

    Args:
        world: what the real head was trained on.
        folder: gets the checkpoints and the progress.
    """
    dataset = world.dataset
    trained = sorted({item.group for item in dataset.items if item.split == "train"})
    pseudo = set(random.Random(f"offset {world.config.seed}").sample(trained, len(trained) // 4))
    kept = [item.group not in pseudo for item in dataset.items]
    dev = [row for row in dataset.rows("dev").tolist() if kept[row] and dataset.items[row].group in trained]
    if dataset.kind != "classes" or not pseudo or not dev or world.config.images.image_lora:
        return {}
    unseen = [row for row in dataset.rows("train").tolist() if not kept[row]]
    items = [
        replace(item, split="test") if item.split == "train" and not keep else item
        for item, keep in zip(dataset.items, kept, strict=True)
    ]
    less = replace(world, dataset=replace(dataset, items=items), identity=f"{world.identity} offset")
    head = train_head(less, folder / "checkpoints", folder / METRICS_FILE).head
    # Of every trained class, whether dev has images of it or not.
    texts = dataset.texts_of(dataset.rows("train").tolist())
    group_T = np.array([dataset.texts[text].group for text in texts])
    class_CD = class_vectors(world.vectors.document_TD[texts], group_T, trained)
    rows = np.array([*dev, *unseen])
    own_N = np.searchsorted(trained, dataset.group_N[rows])
    trained_C = np.array([group not in pseudo for group in trained])
    found = trained_offsets(project(head, world.features_NF[rows]), class_CD, own_N, trained_C)
    return {OFFSETS[name]: value for name, value in found._asdict().items()}


def _with_new_lora(world: World) -> Carriers:
    """Copies of what trains, over the same weights, that carry LoRA.

    Raises:
        UsageError: what cannot carry it.
    """
    sides = world.config.images.image_lora
    tower = _tower_with_lora(world) if world.text_model is None or sides == "both" else None
    return Carriers(tower, None if world.text_model is None else _texts_with_lora(world, world.text_model))


def _tower_with_lora(world: World) -> TransformersTower:
    tower, config, sides = world.encoder.tower, world.config, world.config.images.image_lora
    assert sides is not None
    if not isinstance(tower, TransformersTower):
        raise UsageError(
            f"--image-lora {sides}: {tower.id} is an ONNX graph, which does not train",
            possible="texts; or a model of transformers",
        )
    twin = tower.fork()
    layers = tower_layers(twin.model, config.train.targets, "image" if world.text_model is not None else sides)
    attach_lora(twin.model, replace(config.train, targets=tuple(layers)), config.seed)
    return twin


def _texts_with_lora(world: World, model: Encoder) -> Encoder:
    twin, settings = model.fork(), world.config.train
    attach_lora(twin.model, settings, world.config.seed, world.text_start)
    trainable = lora_parameters(twin.model)
    start_training(twin.model, trainable, settings, parameters=twin.parameters, packed=twin.packed)
    return twin


def _finished(carriers: Carriers, world: World, state: Progress) -> tuple[TowerLora | None, Adapter | None]:
    """What was trained on the image model, and on the texts' model."""
    config, sides, lora, texts = world.config, world.config.images.image_lora, None, None
    assert sides is not None
    rank, alpha = config.train.rank, lora_alpha(config.train)
    if carriers.tower is not None:
        lora = TowerLora.of(carriers.tower.model, rank, alpha, "image" if carriers.texts is not None else sides)
    if carriers.texts is not None:
        source = carriers.texts.source
        texts = Adapter(
            base_id=source.id,
            base_sha256=source.sha256,
            rank=rank,
            alpha=alpha,
            modules=finished_weights(carriers.texts.model),
            use=carriers.texts.use,
            normalise=source.files.normalise,
            metrics={"steps": state.step, "best_step": state.best_step},
        )
    return lora, texts


def _step_parts(world: World, head: ProjectionHead, carriers: Carriers, rows: NDArray[np.int64]) -> TowerStep:
    """What a step computes with, all of it on one device; the head is put there."""
    sides, train = world.config.images.image_lora, world.config.train
    own, _ = numbered_texts(world.dataset, rows)
    words = [world.dataset.texts[text].text for text in own]
    texts: TrainedTexts | None = None
    if carriers.texts is not None:
        texts = ModelTexts(carriers.texts, words, not world.vectors.same, train)
        head.to(carriers.texts.device)
    elif carriers.tower is not None:
        texts = None if sides == "image" else TowerTexts(ImageTexts(carriers.tower), words, train)
        head.to(carriers.tower.device)
    trains = carriers.tower is not None and (carriers.texts is not None or sides != "texts")
    encoder = ImageEncoder(carriers.tower) if carriers.tower is not None and trains else None
    return TowerStep(head, encoder, world.pictures, rows, texts)


def training_examples(
    dataset: ImageDataset,
    rows: NDArray[np.int64],
    features_NF: NDArray[np.float32],
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
    world: World,
    every: int,
    vectors_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    texts: TrainedTexts | None,
) -> Selection | None:
    """How dev images choose the best step; None where there are none.

    Args:
        world: with the dev images.
        every: steps between evaluations.
        vectors_of: numbers of images -> their vectors, by what has been trained so far.
        texts: what encodes texts, where it trains, too.
    """
    dataset, rows = world.dataset, world.dataset.rows("dev")
    if not len(rows):
        return None
    known, _ = numbered_texts(dataset, np.sort(np.concatenate([rows, dataset.rows("train")])))
    own = [set(np.searchsorted(known, dataset.items[row].texts).tolist()) for row in rows]
    words = [dataset.texts[text].text for text in known]

    def evaluate(_: int) -> dict[str, float]:
        text_TD = world.vectors.document_TD[known] if texts is None else texts.encode(words)
        nearest = (vectors_of(rows) @ text_TD.T).argmax(1)
        return {NEAREST: float(np.mean([int(place) in texts for place, texts in zip(nearest, own, strict=True)]))}

    return Selection(evaluate=evaluate, metric=NEAREST, every=every)
