"""What a hypernetwork sees in a step: some tasks, a condition of each, and queries with documents to rank.

All of it is a function of (seed, step), so a training that goes on after a kill sees what it would have seen.

Shapes: T tasks of the step, Q queries of each, M = 2 Q documents of each, D vector size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.configs.hypernetwork import ConditionPart, HypernetworkConfig
from acclimate.data.relevance import Keys, RelevanceTask, TaskLibrary
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionBatch, ConditionVectors, batch_of
from acclimate.retrieval.top_k import Vectors
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.training.schedule import TaskSchedule

RIGHT_PAIRS = 0.5
"""Share of the conditions with a description of something unknown whose pairs, if it has some, are the task's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryVectors:
    """A library's texts as the base sees them."""

    query_ND: Vectors
    document_MD: Vectors
    descriptions: tuple[Vectors, ...]
    """Descriptions [wordings, D] of each task."""
    unknown_WD: Vectors | None = None
    """Descriptions of what no task is about."""

    @property
    def dim(self) -> int:
        return int(self.query_ND.shape[1])


def encode_library(encoder: Encoder, library: TaskLibrary, cache: Path | None = None) -> LibraryVectors:
    """Encode a library by the base, each text once: descriptions as queries are.

    Args:
        encoder: the base.
        library: its texts.
        cache: folder in which the vectors of queries and documents are kept, for a second start.
    """
    flat = encoder.encode([text for task in library.tasks for text in task.descriptions], "query")
    ends = np.cumsum([len(task.descriptions) for task in library.tasks])
    return LibraryVectors(
        query_ND=np.array(encode_corpus(encoder, library.queries, cache, "encode queries", role="query")),
        document_MD=np.array(encode_corpus(encoder, library.documents, cache, "encode documents")),
        descriptions=tuple(np.split(flat, ends[:-1])),
    )


@dataclass(frozen=True, slots=True)
class StepDraw:
    """What one step works on."""

    tasks: NDArray[np.int64]
    """Numbers of its tasks."""
    conditions: ConditionBatch
    query_TQ: Keys
    """Numbers of the queries."""
    document_TM: Keys
    """Numbers of the documents: of each query a relevant one, in order; then the others."""
    excluded_TQM: Tensor
    """True where a document is relevant to the query, or stands there already, and is not the one to be found."""
    unknown_T: Tensor
    """True where nothing in the condition says what the task is."""


class TaskDraws:
    """Draws the steps of a training.

    Args:
        library: its tasks are those that are trained on.
        vectors: of its texts.
        schedule: which tasks a step has.
        config: how many queries, pairs and texts, and of what a condition consists.
    """

    def __init__(
        self, library: TaskLibrary, vectors: LibraryVectors, schedule: TaskSchedule, config: HypernetworkConfig
    ) -> None:
        self.library, self.vectors, self.schedule, self.config = library, vectors, schedule, config
        self.of_family: dict[str, list[RelevanceTask]] = {}
        for task in library.tasks:
            self.of_family.setdefault(task.family, []).append(task)

    def __call__(self, step: int) -> StepDraw:
        """Draw one step (from 0)."""
        generator = np.random.default_rng([self.schedule.seed, step])
        numbers = self.schedule.batch(step)
        queries, documents, conditions, excluded, unknown = [], [], [], [], []
        for number in numbers.tolist():
            task = self.library.tasks[number]
            chosen = generator.permutation(task.usable)
            query_Q = np.resize(chosen, self.config.queries_per_task)  # a small task's queries are repeated
            condition = self._condition(number, chosen[len(query_Q) :], generator)
            condition, tells_nothing = self._made_unknown(task, condition, generator)
            conditions.append(condition)
            unknown.append(tells_nothing)
            document_M = self._documents(task, query_Q, generator)
            queries.append(query_Q)
            documents.append(document_M)
            excluded.append(_excluded(task, query_Q, document_M))
        return StepDraw(
            numbers,
            batch_of(conditions, self.vectors.dim),
            np.stack(queries),
            np.stack(documents),
            torch.from_numpy(np.stack(excluded)),
            torch.tensor(unknown),
        )

    def _made_unknown(
        self, task: RelevanceTask, condition: ConditionVectors, generator: np.random.Generator
    ) -> tuple[ConditionVectors, bool]:
        """Some conditions with a description of something unknown, pairs that have nothing in common, or both.

        Returns:
            the condition, and whether nothing in it says any more what the task is.
        """
        unknown_WD, described = self.vectors.unknown_WD, condition.description_D is not None
        if unknown_WD is None or generator.random() >= self.config.unknown_share:
            return condition, False
        if described:
            condition = replace(condition, description_D=unknown_WD[int(generator.integers(len(unknown_WD)))])
        if condition.query_PD is None:
            return condition, described
        if described and generator.random() < RIGHT_PAIRS:  # the pairs are to be believed, whatever the description
            return condition, False
        drawn = task.ranked()[generator.integers(len(task.ranked()), size=len(condition.query_PD))]
        return replace(condition, document_PD=self.vectors.document_MD[drawn]), True

    def _documents(self, task: RelevanceTask, query_Q: Keys, generator: np.random.Generator) -> Keys:
        """A relevant document of each query, and one that is relevant to it in another task of the same texts."""
        others = self.of_family[task.family]
        other = others[int(generator.integers(len(others)))]
        misleading_Q = other.draw_relevant(query_Q, generator)
        ranked = task.ranked()
        random_Q = ranked[generator.integers(len(ranked), size=len(query_Q))]
        return np.concatenate(
            [task.draw_relevant(query_Q, generator), np.where(misleading_Q >= 0, misleading_Q, random_Q)]
        )

    def _condition(self, number: int, rest: Keys, generator: np.random.Generator) -> ConditionVectors:
        """Draw a condition: some of its parts, a wording, pairs of queries that are not in the step."""
        parts = drawn_parts(self.config.parts, generator)
        return draw_condition(
            self.library.tasks[number],
            self.vectors,
            self.vectors.descriptions[number],
            generator,
            queries=rest,
            described="description" in parts,
            pairs=drawn_count(self.config.max_pairs, generator) if "pairs" in parts else 0,
            texts=drawn_count(self.config.max_texts, generator) if "texts" in parts else 0,
        )


def draw_condition(
    task: RelevanceTask,
    vectors: LibraryVectors,
    descriptions_WD: Vectors,
    generator: np.random.Generator,
    *,
    queries: Keys,
    described: bool,
    pairs: int,
    texts: int,
) -> ConditionVectors:
    """Draw a task's condition.

    Args:
        task: whose condition.
        vectors: of the texts that pairs and sample texts are drawn from.
        descriptions_WD: the task's descriptions; one is drawn.
        generator: of the draws; it draws the same whatever is asked for.
        queries: those that pairs may have, in a random order.
        described: whether it has a description.
        pairs: number of example pairs, or as many as there are queries.
        texts: number of sample texts.
    """
    wording = int(generator.integers(len(descriptions_WD)))
    used = queries[:pairs] if len(queries) else task.usable[:pairs]
    relevant = task.draw_relevant(used, generator)
    present = np.flatnonzero(task.document_M >= 0)
    sample = generator.choice(present, min(texts, len(present)), replace=False)
    return ConditionVectors(
        description_D=descriptions_WD[wording] if described else None,
        query_PD=vectors.query_ND[used] if pairs else None,
        document_PD=vectors.document_MD[relevant] if pairs else None,
        text_SD=vectors.document_MD[sample] if texts else None,
    )


def drawn_parts(parts: Sequence[ConditionPart], generator: np.random.Generator) -> set[ConditionPart]:
    """Some of the parts, at least one; every choice is as likely."""
    chosen = int(generator.integers(1, 2 ** len(parts)))
    return {part for place, part in enumerate(parts) if chosen >> place & 1}


def drawn_count(most: int, generator: np.random.Generator) -> int:
    """A number from 1 to `most`, as likely to be between 1 and 2 as between 16 and 32."""
    return min(most, int(2 ** generator.uniform(0, np.log2(most + 1))))


def task_schedule(tasks: int, config: HypernetworkConfig, seed: int) -> TaskSchedule:
    """Make the schedule of a training over so many tasks: every task once in each pass."""
    per_step = min(config.tasks_per_step, tasks)
    one_pass = -(-tasks // per_step)
    return TaskSchedule(
        examples=tasks,
        batch_size=per_step,
        epochs=config.steps / one_pass,
        seed=seed,
        learning_rate=config.learning_rate,
        warmup_fraction=config.warmup_fraction,
    )


def _excluded(task: RelevanceTask, query_Q: Keys, document_M: Keys) -> NDArray[np.bool_]:
    """[Q, M]: what is relevant too, and copies of a document; the target, in the query's own column, never is."""
    first = np.unique(document_M, return_index=True)[1]
    copy_M = np.ones(len(document_M), bool)
    copy_M[first] = False
    excluded = task.relevant(query_Q, document_M) | copy_M[None]
    places = np.arange(len(query_Q))
    excluded[places, places] = False
    return excluded
