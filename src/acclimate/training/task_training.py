"""The tasks of a training: their examples, the loss of every step, their scores on dev."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from acclimate.configs import TrainConfig, with_overrides
from acclimate.core.lora import adapters_off
from acclimate.data.dataset import EXAMPLES_FILE, Dataset, held_out, load_dataset, read_examples
from acclimate.data.held_out import HeldOut
from acclimate.errors import DataError
from acclimate.evaluation.compare import MAIN_MEASURE
from acclimate.evaluation.dev import Evaluate, dev_set, retrieval_scores, similarity_scores
from acclimate.files import iter_jsonl
from acclimate.formats.trained_on import TrainedOn
from acclimate.models.encoder import Encoder
from acclimate.progress import say
from acclimate.retrieval.own_documents import own_texts
from acclimate.retrieval.top_k import Vectors
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.runs.guards import guard_data
from acclimate.runs.tasks import Task
from acclimate.runs.trained_on import told_by
from acclimate.training.checkpoint import Progress
from acclimate.training.fit import LossFn, Selection, StepResult
from acclimate.training.objectives import LOSSES
from acclimate.training.references import ROLES, ModelsByName, References, load_references, temperature_lexicon
from acclimate.training.reports import HardNegatives, TaskTraining
from acclimate.training.schedule import MixedSchedule, TaskSchedule, numbered_texts
from acclimate.training.setup import evaluation_steps
from acclimate.training.step_texts import Options
from acclimate.training.usable_rows import check_signal, rows_for
from acclimate.types import PAIR_ROLE, Example

DEV_DOCUMENTS = (200, 2000)
"""Fewest and most documents in the pool that dev queries are ranked against, where `dev_documents` is not given."""
DEV_DOCUMENTS_PER_EXAMPLE = 0.2
"""An example trains on two documents and more, at thrice the cost of encoding; the pool is encoded four times."""
FEW_HARD_NEGATIVES = 0.3
"""Where fewer of the examples bring a hard negative, and none is mined, it is told what would."""
MEAN = "mean"
"""The dev score by which the best step of a training on several tasks is chosen: the mean of their main measures."""


@dataclass(slots=True)
class TrainingTask:
    """A task in training."""

    task: Task
    data: Dataset
    examples: list[Example]
    loss: str
    """Name of the loss, never auto."""

    def encoder(self, trained: Encoder) -> Encoder:
        """The encoder that is trained, with this task's prompts."""
        return trained.for_task(self.task.config.task)

    @property
    def texts(self) -> list[str]:
        """The texts of the corpus, or of labelled pairs."""
        return list(self.data.corpus.values()) or [text for e in self.examples for text in (e.anchor, e.positive)]

    @property
    def queries(self) -> list[str]:
        """The training queries; both sentences of labelled pairs, which are encoded as queries."""
        pairs = self.data.kind == "pairs"
        return [text for e in self.examples for text in ((e.anchor, e.positive) if pairs else (e.anchor,))]

    @property
    def dev_queries(self) -> list[str]:
        """Those of the dev split."""
        pairs = [text for pair in self.data.pairs.get("dev", []) for text in (pair.sentence1, pair.sentence2)]
        return [self.data.queries[query] for query in self.data.qrels.get("dev", {})] + pairs


def read_task(task: Task) -> TrainingTask:
    """Read the training rows of a task, and choose their loss.

    Raises:
        DataError: there are no rows for it, or nothing in them to tell apart.
        UsageError: the loss does not fit the data, or compares nothing in batches of one row.
    """
    data = load_dataset(task.dataset)
    examples = read_examples(task.negatives / EXAMPLES_FILE) if task.mined else data.examples
    where = f"the dataset {task.label}"
    if not examples:
        raise DataError(f"{where}has no training examples", fix="Prepare data with a train split.")
    rows, loss = rows_for(examples, task.config.objective, task.config.train)
    check_signal(rows, loss, task.config.train)
    _tell_of_few_negatives(task, rows)
    if task.name is None:
        config = with_overrides(task.config, {"loss": loss})
    else:  # among several tasks, settings that only another's loss has are no conflict
        config = replace(task.config, objective=task.config.objective.with_loss(loss))
    return TrainingTask(replace(task, config=config), data, rows, loss)


def _tell_of_few_negatives(task: Task, rows: Sequence[Example]) -> None:
    """Say what mining would add, where the training would draw hard negatives and nothing mines any."""
    settings = task.config.train
    if task.mined or settings.remine_steps or settings.group_size == 1 or any(row.label is not None for row in rows):
        return
    share = sum(bool(row.negatives) for row in rows) / len(rows)
    if share < FEW_HARD_NEGATIVES:
        say(
            f"warning: {share:.0%} of the {task.label}training pairs bring hard negatives, and none were mined: "
            "acclimate mine finds some"
        )


def mixed_schedule(
    tasks: Sequence[TrainingTask], settings: TrainConfig, seed: int, learning_rate: float
) -> MixedSchedule:
    """Make the schedule of a training. With InfoNCE, whose negatives are other examples, no text is twice in a
    batch."""
    shared: dict[str, Any] = {name: getattr(settings, name) for name in ("epochs", "warmup_fraction")}
    shared["learning_rate"] = learning_rate
    schedules = tuple(
        TaskSchedule(
            examples=len(one.examples),
            batch_size=settings.batch_size,
            seed=seed + number,
            texts=numbered_texts(one.examples) if one.loss == "info-nce" else None,
            shuffled=not one.task.arranged,
            **shared,
        )
        for number, one in enumerate(tasks)
    )
    return MixedSchedule(
        tasks=schedules,
        sampling=settings.task_sampling,
        temperature=settings.sampling_temperature,
        seed=seed,
        **shared,
    )


class TaskLosses:
    """The loss of every step: that of the task which the step belongs to.

    Args:
        tasks: in the order of the schedule's tasks.
        encoder: the encoder in training; here it is still the base, whose vectors may be needed.
        schedule: decides which task a step belongs to.
        autocast: context entered around every forward pass.
        trainable: gets the losses' own parameters.
    """

    def __init__(
        self,
        tasks: Sequence[TrainingTask],
        encoder: Encoder,
        schedule: MixedSchedule,
        autocast: Callable[[], AbstractContextManager[object]],
        trainable: MutableMapping[str, nn.Parameter],
    ) -> None:
        self.tasks, self.encoder, self.schedule = tasks, encoder, schedule
        self._autocast, self._trainable = autocast, trainable
        config = tasks[0].task.config
        models = ModelsByName(config.model, device=str(encoder.device), dtype=config.dtype)
        held = held_out_of(tasks)
        self._references = [_references_of(one, one.encoder(encoder), models, held) for one in tasks]
        self._losses = [self._recipe(number) for number in range(len(tasks))]
        self.told = TrainedOn()
        """What the training is told, over all its steps."""
        for one, references in zip(tasks, self._references, strict=True):
            self.told |= told_by(one.examples, one.data, references.retained)

    def __call__(self, step: int) -> StepResult:
        """Take one step (from 0)."""
        number, step_of_task = self.schedule.turn(step)
        return replace(self._losses[number](step_of_task), task=self.tasks[number].task.name)

    @property
    def retained_excluded(self) -> int:
        """How many texts are not retained because dev or test, of a task or a guard, holds them."""
        return sum(references.retained_excluded for references in self._references)

    def renew(self, number: int, examples: list[Example]) -> None:
        """Go on with other negatives for the examples of a task."""
        self.tasks[number].examples = examples
        self.told |= told_by(examples)
        self._losses[number] = self._recipe(number)

    def _recipe(self, number: int) -> LossFn:
        one = self.tasks[number]
        return LOSSES[one.loss](
            self.encoder,
            one.examples,
            self.schedule.tasks[number],
            one.task.config.objective,
            one.task.config.train,
            Options(
                task=one.task.config.task,
                weight=one.task.weight,
                references=self._references[number],
                learned=self._trainable,
                roles=ROLES if one.data.kind == "retrieval" else (PAIR_ROLE, PAIR_ROLE),
                own=own_texts(one.data),
                autocast=self._autocast,
            ),
        )


def _references_of(one: TrainingTask, encoder: Encoder, models: ModelsByName, held: HeldOut) -> References:
    config, lexicon = one.task.config, None
    if config.objective.temperature_kind == "adaptive":
        lexicon = temperature_lexicon(one.texts, config.domain, config.evaluate.guard, seed=config.seed)
    return load_references(
        config.objective,
        encoder,
        one.task.folder.cache,
        models=models,
        base=partial(Encoder.load, config.base_model, **config.loading) if config.train.full else None,
        document_vectors=document_vectors(encoder, one),
        lexicon=lexicon,
        held_out=held,
    )


def held_out_of(tasks: Sequence[TrainingTask]) -> HeldOut:
    """Collect what dev and test of all tasks hold out, and those of the guards where texts are retained."""
    held = HeldOut()
    for one in tasks:
        held.update(held_out(one.data))
    config = tasks[0].task.config
    if config.evaluate.guard and any(one.task.config.objective.retain_data for one in tasks):
        for guard in guard_data(config.evaluate.guard, seed=config.seed, limit=config.limit):
            held.update(held_out(guard))
    return held


def document_vectors(encoder: Encoder, one: TrainingTask) -> Mapping[str, np.ndarray] | None:
    """Text -> the base's vector, for every document of the training, if documents are not adapted; else None.

    The corpus's vectors are in the cache. Documents that are mined later are among these.
    """
    if one.task.config.train.sides == "both" or one.data.kind == "pairs":  # both texts of a pair are queries
        return None
    corpus_MD = _corpus_vectors(encoder, one)
    vectors = dict(zip(one.data.corpus.values(), corpus_MD, strict=True))
    others = dict.fromkeys(text for e in one.examples for text in (e.positive, *e.negatives) if text not in vectors)
    if others:
        with adapters_off(encoder.model):
            other_vectors = encode_corpus(encoder, list(others), one.task.folder.cache)
        vectors |= dict(zip(others, other_vectors, strict=True))
    return vectors


def _corpus_vectors(encoder: Encoder, one: TrainingTask) -> Vectors:
    texts, cache = list(one.data.corpus.values()), one.task.folder.cache
    with adapters_off(encoder.model):
        return encode_corpus(encoder, texts, cache, f"encode {one.task.label}documents (base)")


def dev_selection(
    tasks: Sequence[TrainingTask], encoder: Encoder, schedule: MixedSchedule, settings: TrainConfig
) -> Selection | None:
    """Set up the evaluation on dev: on all tasks that have a dev split, with the mean of their main measures.

    Args:
        tasks: in the order of the schedule's tasks.
        encoder: the encoder in training; here it is still the base.
        schedule: its length decides how often to evaluate.
        settings: the run's.
    """
    every = evaluation_steps(settings, schedule.steps)
    watched: dict[str, tuple[Evaluate, str]] = {}
    for one, task_schedule in zip(tasks, schedule.tasks, strict=True):
        if (evaluate := _dev_scores(one, one.encoder(encoder), task_schedule)) is not None:
            watched[one.task.name or ""] = (evaluate, MAIN_MEASURE[one.data.kind])
        elif one.task.name:
            say(f"{one.task.name} has no dev split: the best step is chosen without it")
    if not watched:
        return None
    if len(tasks) == 1:
        ((evaluate, metric),) = watched.values()
        return Selection(evaluate=evaluate, metric=metric, every=every)

    def evaluate_all(step: int) -> dict[str, float]:
        scores = {name: evaluate(step) for name, (evaluate, _) in watched.items()}
        mean = statistics.fmean(scores[name][metric] for name, (_, metric) in watched.items())
        flat = {f"{name}/{measure}": value for name, of_task in scores.items() for measure, value in of_task.items()}
        return {MEAN: mean, **flat}

    return Selection(evaluate=evaluate_all, metric=MEAN, every=every)


def _dev_scores(one: TrainingTask, encoder: Encoder, schedule: TaskSchedule) -> Evaluate | None:
    data, config = one.data, one.task.config
    pairs = data.pairs.get("dev")
    qrels = {query: grades for query, grades in data.qrels.get("dev", {}).items() if query not in one.task.aside}
    if pairs:
        return similarity_scores(encoder, pairs)
    if not qrels:
        return None
    corpus_MD = _corpus_vectors(encoder, one)
    documents = config.train.dev_documents or _dev_documents(schedule)
    with adapters_off(encoder.model):  # the pool is the base's choice, also where the training goes on from an adapter
        dev = dev_set(encoder, data.corpus, corpus_MD, data.queries, qrels, documents, config.seed)
    settings, temperature = config.train, config.objective.effective_temperature
    untrained = settings.start_adapter is None
    return retrieval_scores(encoder, dev, sides=settings.sides, temperature=temperature, untrained=untrained)


def _dev_documents(schedule: TaskSchedule) -> int:
    """Size of a pool whose repeated encoding costs about a tenth of the training, within bounds."""
    fewest, most = DEV_DOCUMENTS
    return max(fewest, min(most, round(DEV_DOCUMENTS_PER_EXAMPLE * schedule.examples * schedule.epochs)))


def hard_negative_share(parts: Sequence[TrainingTask]) -> HardNegatives:
    """The share of examples with a hard negative, among those that could have one; empty where none could."""
    examples = [example for part in parts for example in part.examples if example.label is None]
    if not examples:
        return {}
    return {"hard_negative_share": round(sum(bool(example.negatives) for example in examples) / len(examples), 4)}


def task_report(parts: Sequence[TrainingTask], metrics: Path, state: Progress) -> dict[str, TaskTraining]:
    """Report per task: its data, its mean loss over the first and the last tenth of its steps, its dev scores.

    Args:
        parts: the tasks.
        metrics: `metrics.jsonl`, with the rows of the whole training.
        state: names the step that was kept.
    """
    rows = [line.value for line in iter_jsonl(metrics) if line.value is not None]
    dev = {row["step"]: row["dev"] for row in rows if "dev" in row}
    report: dict[str, TaskTraining] = {}
    for part in parts:
        name = str(part.task.name)
        losses = [row["loss"] for row in rows if row.get("task") == name]
        tenth = max(1, len(losses) // 10)
        score = f"{name}/{MAIN_MEASURE[part.data.kind]}"
        report[name] = {
            "loss": part.loss,
            "weight": part.task.weight,
            "examples": len(part.examples),
            **hard_negative_share([part]),
            "steps": len(losses),
            "first_loss": statistics.fmean(losses[:tenth]) if losses else None,
            "last_loss": statistics.fmean(losses[-tenth:]) if losses else None,
            "base_score": dev.get(0, {}).get(score),
            "best_score": dev.get(state.best_step, {}).get(score),
        }
    return report
