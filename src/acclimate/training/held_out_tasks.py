"""Held-out tasks as they are measured: a condition of each, and how well an adapter of each serves it.

Conditions are drawn from training texts, measures are taken on test texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch

from acclimate.core import lora
from acclimate.data.instructed import instructed_library
from acclimate.data.relevance import Keys
from acclimate.data.task_library import GROUPS, SplitLibrary
from acclimate.errors import DataError
from acclimate.evaluation.task_scores import TaskScore, measured_queries, score_task
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.adapted_texts import AdaptedTexts
from acclimate.models.hypernetwork.condition import ConditionVectors
from acclimate.models.hypernetwork.layers import QUERY_VECTOR, Weights, as_weights, mapped
from acclimate.retrieval.top_k import Vectors
from acclimate.training.network_training import Adapted
from acclimate.training.task_draws import LibraryVectors, draw_condition
from acclimate.types import Role

Part: TypeAlias = Literal["train", "test"]
"""Which of the library's texts."""
CONDITIONS: dict[str, tuple[bool, int, int]] = {
    "description": (True, 0, 0),
    "8 pairs": (False, 8, 0),
    "32 pairs": (False, 32, 0),
    "16 texts": (False, 0, 16),
    "description + 8 pairs": (True, 8, 0),
}
"""Name -> description, number of pairs, number of texts."""
MOST_TASKS = 60
"""Held-out tasks of a group that are measured, drawn evenly; half as many where documents are encoded for each."""


@dataclass(frozen=True, eq=False)
class HeldOutTasks:
    """Tasks, and all vectors: of their test texts, and of training texts for the conditions."""

    encoder: Encoder
    library: SplitLibrary
    shown: LibraryVectors
    """Vectors of the training texts, which pairs and sample texts are drawn from, with the test's descriptions."""
    tested: LibraryVectors
    seed: int
    cache: Path
    """Keeps what the blocks below adapters make of the texts."""
    adaptable: dict[tuple[Part, Role, frozenset[str]], AdaptedTexts] = field(default_factory=dict)
    """Texts with LoRA on the layers of these names."""

    def conditions(self, described: bool, pairs: int, texts: int) -> list[ConditionVectors]:
        """Draw one for each task."""
        generator = np.random.default_rng([self.seed, pairs, texts])
        return [
            draw_condition(
                task,
                self.shown,
                self.tested.descriptions[number],
                generator,
                queries=generator.permutation(task.usable),
                described=described,
                pairs=pairs,
                texts=texts,
            )
            for number, task in enumerate(self.library.train.tasks)
        ]

    def score(self, adapters: Sequence[Adapted | None], documents_too: bool = False) -> dict[str, TaskScore]:
        """Measure each task with its own adapter; None is the base. What several tasks share encodes a text once."""
        tasks, found = self.library.test.tasks, {}
        for modules, numbers in _by_adapter(adapters):
            queries = [measured_queries(tasks[number]) for number in numbers]
            ranked = [tasks[number].ranked() for number in numbers]
            query_ND = self._adapted(queries, modules, "query")
            document_MD = self._adapted(ranked, modules if documents_too else None, "document")
            for number, asked, places in zip(numbers, queries, ranked, strict=True):
                found[number] = score_task(tasks[number], asked, query_ND[asked], document_MD[places])
        return {facts.name: found[number] for number, facts in enumerate(self.library.facts)}

    def prefixed(
        self, adapter: Adapted | None, documents_too: bool = False, told: Sequence[int] | None = None
    ) -> dict[str, TaskScore]:
        """Measure one adapter for all tasks, or the base, with the task's description before every query.

        Args:
            adapter: layer -> (A, B).
            documents_too: documents go through it, too.
            told: for each task the number of the one whose description is used; its own by default.
        """
        test = self.library.test
        asked = [measured_queries(task) for task in test.tasks]
        told = range(len(asked)) if told is None else told
        wordings = [test.tasks[place].descriptions[:1] for place in told]
        tasks = tuple(replace(task, descriptions=one) for task, one in zip(test.tasks, wordings, strict=True))
        library = instructed_library(replace(test, tasks=tasks), asked, self.seed)
        encoder, document_MD = self.encoder, self.tested.document_MD
        if adapter is not None and QUERY_VECTOR not in adapter:
            encoder = self._with(adapter)
            document_MD = encoder.encode(library.documents, "document") if documents_too else document_MD
        query_ND = encoder.encode(library.queries, "query", label="encode described queries")
        if adapter is not None and QUERY_VECTOR in adapter:
            query_ND = _mapped(query_ND, adapter)
        found = {}
        for facts, task in zip(self.library.facts, library.tasks, strict=True):
            found[facts.name] = score_task(task, task.usable, query_ND[task.usable], document_MD[task.ranked()])
        return found

    def only(self, numbers: Sequence[int]) -> HeldOutTasks:
        """Return some of the tasks, over all texts: vectors stay in their places."""
        facts = tuple(self.library.facts[number] for number in numbers)
        names = [one.name for one in facts]
        known = self.library
        library = SplitLibrary(known.train.only(names), known.test.only(names), facts, known.languages)
        shown, tested = (
            replace(vectors, descriptions=tuple(vectors.descriptions[number] for number in numbers))
            for vectors in (self.shown, self.tested)
        )
        return replace(self, library=library, shown=shown, tested=tested)

    def sample(self, most: int) -> list[int]:
        """Numbers of at most so many tasks of each group, drawn evenly."""
        numbers: list[int] = []
        for group in GROUPS[1:]:
            own = [number for number, facts in enumerate(self.library.facts) if facts.group == group]
            numbers += evenly_drawn(own, most)
        return numbers

    def exchanged(self) -> list[int]:
        """For each task the number of another one of the same family, or else of any other task."""
        facts, places = self.library.facts, []
        for number, one in enumerate(facts):
            order = (*range(number + 1, len(facts)), *range(number))
            others = [place for place in order if facts[place].family == one.family]
            places.append(others[0] if others else (number + 1) % len(facts))
        return places

    def _adapted(self, parts: Sequence[Keys], modules: Adapted | None, role: Role) -> Vectors:
        """Vectors of all test texts of a role, those of these numbers with an adapter; no map is for documents."""
        base_ND = self.tested.query_ND if role == "query" else self.tested.document_MD
        if modules is None or (QUERY_VECTOR in modules and role == "document"):
            return base_ND
        numbers_N, vectors_ND = np.unique(np.concatenate(parts)), base_ND.copy()
        vectors_ND[numbers_N] = (
            _mapped(base_ND[numbers_N], modules)
            if QUERY_VECTOR in modules
            else self.encoded(as_weights(modules), numbers_N, role)
        )
        return vectors_ND

    def encoded(self, weights: Weights, numbers_N: Keys, role: Role = "query", part: Part = "test") -> Vectors:
        """Encode some of the texts through the encoder with an adapter.

        Args:
            weights: of one task.
            numbers_N: the texts, queries or documents by their role.
            role: of the texts.
            part: of the library.
        """
        key = part, role, frozenset(weights)
        if key not in self.adaptable:
            library = self.library.test if part == "test" else self.library.train
            tokens = self.encoder.tokenise(library.queries if role == "query" else library.documents, role)
            label = f"lower blocks of {part} {role} texts, once"
            self.adaptable[key] = AdaptedTexts(self.encoder, tokens, weights, self.cache, label)
        return self.adaptable[key].encode(weights, numbers_N)

    def _with(self, modules: Adapted) -> Encoder:
        encoder = self.encoder.fork()
        lora.attach_weights(encoder.model, modules)
        return encoder


def _by_adapter(adapters: Sequence[Adapted | None]) -> list[tuple[Adapted | None, list[int]]]:
    """Each adapter with the numbers of the tasks that it is for."""
    found: dict[int, tuple[Adapted | None, list[int]]] = {}
    for number, modules in enumerate(adapters):
        found.setdefault(id(modules), (modules, []))[1].append(number)
    return [*found.values()]


def held_out(library: SplitLibrary, *, documents_too: bool = False) -> list[int]:
    """Numbers of the tasks that are measured.

    Args:
        library: all tasks.
        documents_too: each task's documents are encoded by its own adapter.

    Raises:
        DataError: no task is held out.
    """
    most = MOST_TASKS // 2 if documents_too else MOST_TASKS
    chosen = [number for group in GROUPS[1:] for number in evenly_drawn(library.numbers(group), most)]
    if not chosen:
        raise DataError("the library holds no task that is held out", fix="Make it with more corpora.")
    return chosen


def evenly_drawn(numbers: Sequence[int], most: int) -> list[int]:
    """Take at most `most` of some numbers, at even distances."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[place] for place in places.tolist()]


def encode_drawn(
    encoder: Encoder, part: SplitLibrary, tested: LibraryVectors, asked: Sequence[tuple[bool, int, int]], seed: int
) -> LibraryVectors:
    """Encode only the training texts that conditions are made of: the draws are made once with numbers for vectors."""
    sizes = {"query": len(part.train.queries), "document": len(part.train.documents)}
    numbers = {role: np.arange(size, dtype=np.float32)[:, None] for role, size in sizes.items()}
    plan = LibraryVectors(query_ND=numbers["query"], document_MD=numbers["document"], descriptions=tested.descriptions)
    world = HeldOutTasks(encoder, part, plan, tested, seed, Path())
    drawn = [condition for one in asked for condition in world.conditions(*one)]
    queries = [one.query_PD for one in drawn]
    documents = [rows for one in drawn for rows in (one.document_PD, one.text_SD)]
    return replace(
        plan,
        query_ND=_encoded(encoder, part.train.queries, queries, "query"),
        document_MD=_encoded(encoder, part.train.documents, documents, "document"),
    )


def _encoded(encoder: Encoder, texts: Sequence[str], numbers: Sequence[Vectors | None], role: Role) -> Vectors:
    """Vectors of the texts of these numbers; those of the others are 0."""
    places = np.unique(np.concatenate([rows.ravel() for rows in numbers if rows is not None])).astype(np.int64)
    vectors = np.zeros((len(texts), encoder.use.dim), np.float32)
    vectors[places] = encoder.encode([texts[place] for place in places.tolist()], role, label=f"encode {role} pairs")
    return vectors


def _mapped(query_ND: Vectors, modules: Adapted) -> Vectors:
    rows: Vectors = mapped(torch.from_numpy(query_ND)[None], as_weights(modules))[0].numpy()
    return rows
