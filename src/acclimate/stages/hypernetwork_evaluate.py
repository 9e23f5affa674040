"""`hypernetwork evaluate`: what hypernetworks gain on held-out tasks, and whether by the condition.

Headroom comes first: base, multi-task adapter, the description put before the query, and each task's own adapter bound
what a generator can gain. Then every hypernetwork with descriptions, pairs, both, sample texts; and with the condition
of another task (shuffled) and the mean of all training conditions, without which a gain shows nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acclimate.configs import RunConfig, used
from acclimate.configs.hypernetwork import NetworkConfig
from acclimate.core import lora
from acclimate.data.task_library import GROUPS, SplitLibrary, read_library
from acclimate.errors import DataError, UsageError
from acclimate.evaluation.task_scores import TaskScore, collapse, difference, measured_queries, score_task
from acclimate.files import hash_folder, work_folder, write_jsonl, write_text
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionVectors, batch_of
from acclimate.models.hypernetwork.layers import QUERY_VECTOR, Weights, mapped, of_task
from acclimate.models.hypernetwork.reference_points import map_from_pairs
from acclimate.models.hypernetwork.saving import TrainedNetwork, load_network
from acclimate.progress import progress, say
from acclimate.report import hypernetwork_page
from acclimate.retrieval.top_k import Vectors
from acclimate.runs.resolve import find_base
from acclimate.runs.run_folder import CACHE, PAGE_FILE
from acclimate.runs.step import Work, step
from acclimate.training.network_training import Adapted, NetworkTraining
from acclimate.training.task_draws import LibraryVectors, draw_condition, encode_library
from acclimate.types import Role

BASE, MULTI_TASK, PREFIX, ORACLE = "base", "multi-task", "description before the query", "own adapter"
MAIN = "description + 8 pairs"
CONDITIONS: dict[str, tuple[bool, int, int]] = {
    "description": (True, 0, 0),
    "8 pairs": (False, 8, 0),
    "32 pairs": (False, 32, 0),
    "16 texts": (False, 0, 16),
    MAIN: (True, 8, 0),
}
"""Name -> description, number of pairs, number of texts."""
CONTROLS = ("shuffled", "mean")
MOST_TASKS = 60
"""Held-out tasks of a group that are measured, drawn evenly."""
MOST_REFERENCES = 20
"""Tasks of a group on which references are measured that take seconds each."""
LOADED_CALLS = 5

Scores = dict[str, dict[str, TaskScore]]
"""Arm -> task -> its measures."""


@dataclass(frozen=True, eq=False)
class _World:
    """Held-out tasks, and all vectors: of their test texts, and of training texts for the conditions."""

    encoder: Encoder
    library: SplitLibrary
    shown: LibraryVectors
    """Vectors of the training texts, which pairs and sample texts are drawn from, with the test's descriptions."""
    tested: LibraryVectors
    seed: int

    def conditions(self, described: bool, pairs: int, texts: int) -> list[ConditionVectors]:
        """One for each task."""
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
        """Measure each task with its own adapter; None is the base."""
        found = {}
        for number, (task, modules) in enumerate(zip(self.library.test.tasks, adapters, strict=True)):
            queries = measured_queries(task)
            query_ND, document_MD = self._adapted(queries, modules, documents_too)
            found[self.library.facts[number].name] = score_task(task, queries, query_ND, document_MD)
        return found

    def prefixed(self, numbers: Sequence[int]) -> dict[str, TaskScore]:
        """Measure the base with the description before each query of some tasks."""
        found = {}
        for number in numbers:
            facts, task = self.library.facts[number], self.library.test.tasks[number]
            queries = measured_queries(task)
            texts = [f"{task.descriptions[0]} {self.library.test.queries[query]}" for query in queries]
            query_ND = self.encoder.encode(texts, "query")
            found[facts.name] = score_task(task, queries, query_ND, self.tested.document_MD)
        return found

    def _adapted(self, queries: Any, modules: Adapted | None, documents_too: bool) -> tuple[Vectors, Vectors]:
        query_ND, document_MD = self.tested.query_ND[queries], self.tested.document_MD
        if modules is None:
            return query_ND, document_MD
        if QUERY_VECTOR in modules:
            one = {name: (A_rI[None], B_Or[None]) for name, (A_rI, B_Or) in modules.items()}
            return mapped(torch.from_numpy(query_ND)[None], one)[0].numpy(), document_MD
        encoder = self.encoder.fork()
        lora.attach_weights(encoder.model, modules)
        query_ND = encoder.encode([self.library.test.queries[query] for query in queries], "query")
        return query_ND, encoder.encode(self.library.test.documents, "document") if documents_too else document_MD


def hypernetwork_evaluate(
    hypernetworks: Sequence[Path], tasks: Path, out: Path, config: RunConfig, *, references: bool = True
) -> dict[str, Any]:
    """Measure hypernetworks of one base on a library's held-out tasks.

    Args:
        hypernetworks: folders that `hypernetwork train` wrote.
        tasks: the library's folder.
        out: the folder to write: report.json, report.html, per_task.jsonl.
        config: where the base is, `seed`, `evaluate.sign_flips`, `evaluate.confidence`.
        references: measure what takes minutes on a sample of the tasks: the description put before the query, and an
            adapter trained on the task itself, from the multi-task adapter on.

    Returns:
        what report.json holds: "arms" (group -> arm -> measures), "gains" (group -> arm -> difference to each rival),
        "collapse" and "generation_s" by hypernetwork.

    Raises:
        UsageError: none is named.
        DataError: the library holds no held-out task.
        ModelError: hypernetworks of different bases, or another base.
    """
    if not hypernetworks:
        raise UsageError("no hypernetwork to measure", possible="one or more folders of hypernetwork-train")
    trained = {folder.name: load_network(folder) for folder in hypernetworks}
    if len(trained) < len(hypernetworks):
        raise UsageError("two hypernetworks have the same folder's name", fix="Rename one of them.")
    first = next(iter(trained.values()))
    source = find_base(hypernetworks[0], first.base_id, first.base_sha256, config.model, first.use.pooling)
    library = read_library(tasks)
    held = _held_out(library)
    settings = {**used(config, "hypernetwork-evaluate"), "references": references}
    inputs = {
        "tasks": hash_folder(tasks),
        **{name: hash_folder(folder) for name, folder in zip(trained, hypernetworks, strict=True)},
    }

    def make() -> Work[dict[str, Any]]:
        encoder = Encoder.open(source, first.use, **config.machine)
        part, cache = library.only(held), work_folder(out) / CACHE
        tested = encode_library(encoder, part.test, cache)
        shown = encode_library(encoder, part.train, cache) if references else _drawn(encoder, part, tested, config.seed)
        world = _World(encoder, part, shown, tested, config.seed)
        scores = _headroom(world, first, config, work_folder(out) if references else None)
        found: dict[str, Any] = {"collapse": {}, "generation_s": {}}
        for name, one in trained.items():
            scores |= _measured(world, name, one, found)
        generators = {name: one.network.architecture.generator for name, one in trained.items()}
        report = {
            "base": first.base,
            "generators": generators,
            **_summary(part, scores, list(trained), config),
            **found,
        }
        return Work(lambda folder: _write(folder, out.name, report, scores, part))

    reads: list[str | Path] = [*hypernetworks, tasks]
    return step("hypernetwork evaluate", out, settings, inputs, make, seconds="hypernetwork_evaluate_s", reads=reads)


def _drawn(encoder: Encoder, part: SplitLibrary, tested: LibraryVectors, seed: int) -> LibraryVectors:
    """Encode only the training texts that a condition is made of: the draws are made once with numbers for vectors."""
    sizes = {"query": len(part.train.queries), "document": len(part.train.documents)}
    numbers = {role: np.arange(size, dtype=np.float32)[:, None] for role, size in sizes.items()}
    plan = LibraryVectors(query_ND=numbers["query"], document_MD=numbers["document"], descriptions=tested.descriptions)
    drawn = [
        condition
        for asked in CONDITIONS.values()
        for condition in _World(encoder, part, plan, tested, seed).conditions(*asked)
    ]
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


def _held_out(library: SplitLibrary) -> list[int]:
    """Numbers of the tasks that are measured."""
    chosen = []
    for group in GROUPS[1:]:
        numbers = library.numbers(group)
        places = np.linspace(0, len(numbers) - 1, min(MOST_TASKS, len(numbers))).round().astype(int)
        chosen += [numbers[place] for place in places.tolist()]
    if not chosen:
        raise DataError("the library holds no task that is held out", fix="Make it with more corpora.")
    return chosen


def _headroom(world: _World, first: TrainedNetwork, config: RunConfig, work: Path | None) -> Scores:
    """Base, multi-task adapter, instruction prefix, closed form and oracles; printed before anything is generated."""
    count, both = len(world.library.facts), first.sides == "both"
    scores: Scores = {BASE: world.score([None] * count)}
    if first.shared:
        scores[MULTI_TASK] = world.score([first.shared] * count, both)
    for pairs in (8, 32):
        maps = [_closed_form(condition) for condition in world.conditions(False, pairs, 0)]
        scores[f"closed-form map, {pairs} pairs"] = world.score(maps)
    if work is not None:
        numbers = _sample(world.library)
        scores[PREFIX] = world.prefixed(numbers)
        if first.shared and QUERY_VECTOR in first.shared:
            scores[ORACLE] = _oracles(world, numbers, first, config, work)
    for arm, of_task_name in scores.items():
        say(f"headroom: {arm}: NDCG@10 {_mean(list(of_task_name.values())):.3f} ({len(of_task_name)} tasks)")
    return scores


def _closed_form(condition: ConditionVectors) -> Adapted:
    assert condition.query_PD is not None and condition.document_PD is not None  # pairs were asked for
    return of_task(map_from_pairs(torch.from_numpy(condition.query_PD), torch.from_numpy(condition.document_PD)), 0)


def _sample(library: SplitLibrary) -> list[int]:
    """Numbers of some tasks of each group, drawn evenly."""
    numbers: list[int] = []
    for group in GROUPS[1:]:
        own = [number for number, facts in enumerate(library.facts) if facts.group == group]
        places = np.linspace(0, len(own) - 1, min(MOST_REFERENCES, len(own))).round().astype(int)
        numbers += [own[place] for place in places.tolist()]
    return numbers


def _oracles(
    world: _World, numbers: Sequence[int], first: TrainedNetwork, config: RunConfig, work: Path
) -> dict[str, TaskScore]:
    """An adapter trained on each of some held-out tasks, from the multi-task adapter on."""
    sizes = {name: first.metrics[name] for name in ("through", "shared_rank", "own_rank", "learning_rate")}
    found: dict[str, TaskScore] = {}
    with progress("own adapters", len(numbers), "tasks") as advance:
        for number in numbers:
            name = world.library.facts[number].name
            training = NetworkTraining(
                encoder=world.encoder,
                library=world.library.train.only([name]),
                vectors=replace(world.shown, descriptions=(world.shown.descriptions[number],)),
                config=NetworkConfig(**sizes),
                seed=config.seed,
                folder=work / "own" / str(number),
            )
            modules = training.alone(first.shared)
            one = replace(world, library=_only(world.library, number))
            found |= one.score([modules])
            advance(1)
    return found


def _only(library: SplitLibrary, number: int) -> SplitLibrary:
    """One task, over all texts: vectors stay in their places."""
    facts = library.facts[number]
    return SplitLibrary(library.train.only([facts.name]), library.test.only([facts.name]), (facts,))


def _measured(world: _World, name: str, trained: TrainedNetwork, found: dict[str, Any]) -> Scores:
    """One hypernetwork with every condition and control."""
    network, dim, both = trained.network, world.encoder.use.dim, trained.sides == "both"
    count = len(world.library.facts)
    main = world.conditions(*CONDITIONS[MAIN])
    generated: dict[str, Weights] = {}
    with torch.inference_mode():
        for condition, asked in CONDITIONS.items():
            generated[condition] = network(batch_of(world.conditions(*asked), dim))
        generated["shuffled"] = network(batch_of([main[place] for place in _exchanged(world.library)], dim))
        rows = trained.known.parts.get("description")
        if rows is not None:
            known = [ConditionVectors(description_D=row_D) for row_D in rows[0]]
            mean_1C = network.condition(batch_of(known, dim)).mean(0, keepdim=True)
            generated["mean"] = network.from_condition(mean_1C.expand(count, -1))
    scores: Scores = {}
    with progress(f"measure {name}", len(generated), "conditions") as advance:
        for condition, weights in generated.items():
            adapters = [of_task(weights, number) for number in range(count)]
            scores[f"{name}, {condition}"] = world.score(adapters, both)
            advance(1)
    updates = [of_task(generated[MAIN], number) for number in range(count)]
    if trained.shared and count > 1:
        found["collapse"][name] = collapse(updates, trained.shared)
        if found["collapse"][name]["collapsed"]:
            say(f"warning: {name} generates one adapter for all tasks: its condition has no effect")
    found["generation_s"][name] = _seconds(trained, main[0], dim)
    return scores


def _exchanged(library: SplitLibrary) -> list[int]:
    """For each task another one of the same family with another definition, or else any other task."""
    places = []
    for number, facts in enumerate(library.facts):
        others = [
            place
            for place in (*range(number + 1, len(library.facts)), *range(number))
            if library.facts[place].family == facts.family
        ]
        places.append(others[0] if others else (number + 1) % len(library.facts))
    return places


def _seconds(trained: TrainedNetwork, condition: ConditionVectors, dim: int) -> dict[str, float]:
    """Seconds from vectors of a condition to weights: the first call and the median of later ones."""
    batch, taken = batch_of([condition], dim), []
    with torch.inference_mode():
        for _ in range(LOADED_CALLS):
            started = time.perf_counter()
            trained.network(batch)
            taken.append(time.perf_counter() - started)
    return {"first": round(taken[0], 5), "later": round(float(np.median(taken[1:])), 5)}


def _summary(part: SplitLibrary, scores: Scores, names: Sequence[str], config: RunConfig) -> dict[str, Any]:
    """Means of each arm, and what each hypernetwork gains over its rivals, by group and over all."""
    groups: dict[str, list[str]] = {"held out": [facts.name for facts in part.facts]}
    for kind in GROUPS[1:]:
        groups[kind] = [facts.name for facts in part.facts if facts.group == kind]
    groups = {group: tasks for group, tasks in groups.items() if tasks}
    arms: dict[str, dict[str, Any]] = {}
    gains: dict[str, dict[str, Any]] = {}
    how: dict[str, Any] = {
        "flips": config.evaluate.sign_flips,
        "confidence": config.evaluate.confidence,
        "seed": config.seed,
    }
    for group, tasks in groups.items():
        arms[group] = {}
        for arm, of_task_name in scores.items():
            rows = [of_task_name[task] for task in tasks if task in of_task_name]
            if rows:
                means = {
                    name: round(float(np.mean([getattr(row, name) for row in rows])), 4)
                    for name in ("ndcg", "recall", "mrr")
                }
                arms[group][arm] = {"tasks": len(rows), **means}
        gains[group] = {}
        for name in names:
            main = f"{name}, {MAIN}"
            rivals = [BASE, MULTI_TASK, PREFIX, *(f"{name}, {control}" for control in CONTROLS)]
            gains[group][main] = {
                rival: difference(scores[rival], scores[main], own, **how)
                for rival in rivals
                if (own := [task for task in tasks if task in scores.get(rival, {})])
            }
    return {
        "arms": arms,
        "gains": gains,
        "confidence": config.evaluate.confidence,
        "groups": {g: len(t) for g, t in groups.items()},
    }


def _mean(rows: Sequence[TaskScore]) -> float:
    return float(np.mean([row.ndcg for row in rows]))


def _write(folder: Path, name: str, report: dict[str, Any], scores: Scores, part: SplitLibrary) -> dict[str, Any]:
    rows = [
        {
            **asdict(facts),
            "scores": {arm: asdict(found[facts.name]) for arm, found in scores.items() if facts.name in found},
        }
        for facts in part.facts
    ]
    write_jsonl(folder / "per_task.jsonl", rows)
    write_text(folder / PAGE_FILE, hypernetwork_page.render(name, report))
    return report
