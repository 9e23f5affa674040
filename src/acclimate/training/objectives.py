"""The losses as `loss_fn`s for `fit`: which texts a step needs, and what is computed from their vectors.

`LOSSES` names the recipe of each loss. A recipe is called once per training (or task of one) and gives the function of
a step; all of them take the same arguments:

    encoder     the encoder in training
    examples    all training rows, as `rows_for` leaves them for the loss
    schedule    which rows a step has
    objective   the loss and its settings
    train       group size, memory
    options     task, weight, the models that the objective names (`step_texts.Options`)

Legend: N training rows of the step, M documents, G documents of one row, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from acclimate.configs import ObjectiveConfig, TrainConfig
from acclimate.core import losses
from acclimate.errors import UsageError
from acclimate.models.devices import to_device
from acclimate.models.encoder import Encoder
from acclimate.training.contrast import Candidates, Relations
from acclimate.training.fit import LossFn, StepResult
from acclimate.training.references import ROLES
from acclimate.training.schedule import TaskSchedule
from acclimate.training.step_texts import DEFAULTS, Options, StepTexts
from acclimate.training.temperature import Temperature
from acclimate.training.usable_rows import rows_for
from acclimate.types import Example, Role


class Recipe(Protocol):
    """Makes a training's `loss_fn` from the arguments in the module's docstring."""

    def __call__(
        self,
        encoder: Encoder,
        examples: Sequence[Example],
        schedule: TaskSchedule,
        objective: ObjectiveConfig,
        train: TrainConfig,
        options: Options = DEFAULTS,
    ) -> LossFn: ...


def info_nce(
    encoder: Encoder,
    examples: Sequence[Example],
    schedule: TaskSchedule,
    objective: ObjectiveConfig,
    train: TrainConfig,
    options: Options = DEFAULTS,
) -> LossFn:
    """InfoNCE over in-batch and drawn negatives, in the objective's blocks, with its masks and temperature."""
    references, second = options.references, second_role(examples, options)
    texts = list(_texts(examples, second))
    step_texts = StepTexts(encoder, texts, objective, train, schedule.seed, options, second)
    guide = None if references.guide is None else references.vectors(references.guide, texts, "guide")
    temperature = Temperature(
        objective,
        (example.anchor for example in examples),
        lexicon=references.lexicon,
        learned=options.learned,
        task=options.task,
        device=encoder.device,
    )
    relations = Relations(examples, options.own)
    negatives = train.group_size - 1 if references.document_vectors is None else None

    def loss_fn(step: int) -> StepResult:
        batch = batch_with_negatives(examples, schedule, step, negatives)
        candidates = Candidates.of(batch, relations, objective.blocks).to(encoder.device)
        anchors = [example.anchor for example in batch]

        def loss_of(query_UD: Tensor, document_MD: Tensor) -> Tensor:
            cosine, positive_N = candidates.cosines(query_UD, document_MD)
            guide_cosines = None
            if guide is not None:
                guide_cosines = candidates.cosines(
                    guide("query", candidates.queries), guide(second, candidates.documents)
                )
            return losses.info_nce_blocks(
                cosine,
                candidates.all_excluded(cosine, positive_N, guide_cosines, objective),
                candidates.anchor_N,
                candidates.target_N,
                positive_N,
                temperature(anchors),
                partition=objective.partition,
                hardness_strength=objective.hardness_strength,
            )

        return step_texts.backward(
            step,
            candidates.queries,
            candidates.documents,
            loss_of,
            parameters=temperature.parameters,
            metrics=temperature.metrics,
        )

    return loss_fn


def pair_loss(
    encoder: Encoder,
    examples: Sequence[Example],
    schedule: TaskSchedule,
    objective: ObjectiveConfig,
    train: TrainConfig,
    options: Options = DEFAULTS,
) -> LossFn:
    """A loss on labelled pairs: the cosine of two texts against their label."""
    first, second = options.roles
    texts = [(role, text) for e in examples for role, text in ((first, e.anchor), (second, e.positive))]
    step_texts = StepTexts(encoder, texts, objective, train, schedule.seed, options, second)
    loss = PAIR_LOSSES[objective.loss]

    def loss_fn(step: int) -> StepResult:
        batch = [examples[row] for row in schedule.batch(step)]
        anchors, others = [example.anchor for example in batch], [example.positive for example in batch]
        label_N = to_device(torch.tensor([example.label or 0.0 for example in batch]), encoder.device)

        def loss_of(first_ND: Tensor, second_ND: Tensor) -> Tensor:
            return loss(first_ND, second_ND, label_N, objective)

        return step_texts.backward(step, anchors, others, loss_of)

    return loss_fn


def group_loss(
    encoder: Encoder,
    examples: Sequence[Example],
    schedule: TaskSchedule,
    objective: ObjectiveConfig,
    train: TrainConfig,
    options: Options = DEFAULTS,
) -> LossFn:
    """A loss on each row's own documents, its positive and its drawn negatives, with a teacher's scores if needed."""
    fixed = options.references.document_vectors
    negatives = train.group_size - 1 if fixed is None else None
    step_texts = StepTexts(encoder, _texts(examples), objective, train, schedule.seed, options)
    loss = GROUP_LOSSES[objective.loss]
    if lacking := len(examples) - len(rows_for(examples, objective, train)[0]):  # can happen after mining again
        raise UsageError(
            f"{lacking} of {len(examples)} examples lack negatives or scores for {objective.loss}",
            fix="Train without mining again (remine_steps), or loosen the filters of mining.",
        )

    def loss_fn(step: int) -> StepResult:
        batch = batch_with_negatives(examples, schedule, step, negatives)
        groups = [(example.positive, *example.negatives) for example in batch]
        documents = list(dict.fromkeys(text for group in groups for text in group))
        column = {text: index for index, text in enumerate(documents)}
        index_NG = _padded([[column[text] for text in group] for group in groups], torch.int64)
        scores_NG = _padded([example.scores or () for example in batch], torch.float32)
        present_NG = _padded([[True] * len(group) for group in groups], torch.bool)
        tables = (index_NG, scores_NG, present_NG)
        index_NG, scores_NG, present_NG = (to_device(table, encoder.device) for table in tables)

        def loss_of(query_ND: Tensor, document_MD: Tensor) -> Tensor:
            query_ND = losses.at_least_float32(query_ND)
            cosine_NG = torch.einsum("nd,ngd->ng", query_ND, document_MD.to(query_ND.dtype)[index_NG])
            return loss(cosine_NG, scores_NG, present_NG, objective)

        return step_texts.backward(step, [example.anchor for example in batch], documents, loss_of)

    return loss_fn


def embedding_distillation(
    encoder: Encoder,
    examples: Sequence[Example],
    schedule: TaskSchedule,
    objective: ObjectiveConfig,
    train: TrainConfig,
    options: Options = DEFAULTS,
) -> LossFn:
    """Embedding distillation: pull a batch's vectors towards a teacher's; labels and scores are ignored."""
    references = options.references
    if references.teacher is None:
        raise UsageError("embedding-distillation has no teacher", fix="Give one with --embedding-teacher MODEL.")
    second = second_role(examples, options)
    texts = list(_texts(examples, second))
    step_texts = StepTexts(encoder, texts, objective, train, schedule.seed, options)
    teacher = references.vectors(references.teacher, texts, "teacher")
    fixed: Role | None = None if references.document_vectors is None else "document"

    def loss_fn(step: int) -> StepResult:
        batch = batch_with_negatives(examples, schedule, step, train.group_size - 1)
        computed = dict.fromkeys(named for named in _texts(batch, second) if named[0] != fixed)
        queries, documents = ([text for other, text in computed if other == role] for role in ROLES)

        def loss_of(query_UD: Tensor, document_MD: Tensor) -> Tensor:
            vector_UD = torch.cat([query_UD, document_MD])
            teacher_UT = teacher.rows(
                [("query", text) for text in queries] + [("document", text) for text in documents]
            )
            if teacher_UT.shape[1] == encoder.use.dim:
                teacher_UT = losses.narrowed(teacher_UT, vector_UD.shape[1])
            return losses.vector_distillation(vector_UD, teacher_UT)

        return step_texts.backward(step, queries, documents, loss_of)

    return loss_fn


LOSSES: dict[str, Recipe] = {
    "info-nce": info_nce,
    **dict.fromkeys(("cosine-mse", "cosent", "angle", "contrastive", "online-contrastive", "binary"), pair_loss),
    **dict.fromkeys(("triplet", "margin-mse", "kl"), group_loss),
    "embedding-distillation": embedding_distillation,
}
"""Loss -> its recipe."""

PAIR_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, ObjectiveConfig], Tensor]] = {
    "cosine-mse": lambda a, b, label, _: losses.cosine_mse(a, b, label),
    "cosent": lambda a, b, label, objective: losses.cosent(a, b, label, objective.effective_temperature),
    "angle": lambda a, b, label, objective: losses.angle(a, b, label, objective.effective_temperature),
    "contrastive": lambda a, b, label, objective: losses.contrastive(a, b, label, objective.contrastive_margin),
    "online-contrastive": lambda a, b, label, objective: losses.online_contrastive(
        a, b, label, objective.contrastive_margin
    ),
    "binary": lambda a, b, label, objective: losses.binary_cross_entropy(
        a, b, label, objective.cosine_threshold, objective.effective_temperature
    ),
}
"""(unit rows [N, D], unit rows [N, D], labels [N], the objective) -> scalar."""

GROUP_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, ObjectiveConfig], Tensor]] = {
    "triplet": lambda cosine, _, present, objective: losses.triplet(cosine, present, objective.triplet_margin),
    "margin-mse": lambda cosine, score, present, objective: losses.margin_mse(
        cosine, score / objective.teacher_temperature, present
    ),
    "kl": lambda cosine, score, present, objective: losses.kl_divergence(
        cosine, score, present, objective.effective_temperature, objective.teacher_temperature
    ),
}
"""(cosines [N, G], scores [N, G], True where a document is present [N, G], the objective) -> scalar."""


def batch_with_negatives(
    examples: Sequence[Example], schedule: TaskSchedule, step: int, count: int | None
) -> list[Example]:
    """The rows of a step, each with the negatives that `draw_negatives` chooses for it in this pass."""
    epoch = schedule.epoch(step)
    return [draw_negatives(examples[row], count, schedule.seed, epoch, int(row)) for row in schedule.batch(step)]


def draw_negatives(example: Example, count: int | None, seed: int, epoch: int, number: int) -> Example:
    """Draw `count` of the example's negatives (all of them if None), with their scores.

    A function of (seed, pass, number of the example).
    """
    if count is None or len(example.negatives) <= count:
        return example
    chosen = np.random.default_rng([seed, epoch, number]).choice(len(example.negatives), size=count, replace=False)
    scores = example.scores
    return replace(
        example,
        negatives=tuple(example.negatives[index] for index in chosen),
        scores=None if scores is None else (scores[0], *(scores[1 + index] for index in chosen)),
    )


def second_role(examples: Iterable[Example], options: Options) -> Role:
    """The role of the examples' positives: a document's, or where they are labelled pairs what the options say."""
    return options.roles[1] if any(example.label is not None for example in examples) else "document"


def _texts(examples: Sequence[Example], second: Role = "document") -> Iterable[tuple[Role, str]]:
    for example in examples:
        yield "query", example.anchor
        yield second, example.positive
        for text in example.negatives:
            yield "document", text


def _padded(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    """[N, longest row], 0 (or False) where a row is shorter."""
    padded = torch.zeros(len(rows), max(map(len, rows)), dtype=dtype)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = torch.tensor(row, dtype=dtype)
    return padded
