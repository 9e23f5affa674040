"""`hypernetwork evaluate`: what hypernetworks gain on held-out tasks, and whether by the condition.

Headroom comes first: base, multi-task adapter, the description put before the query, and each task's own adapter bound
what a generator can gain. Then every hypernetwork with descriptions, pairs, both, sample texts; and with the condition
of another task (shuffled) and the mean of all training conditions, without which a gain shows nothing. Last, what
`generate` would choose by a user's own pairs. What is measured is kept, so that a second start goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acclimate.configs import RunConfig, used
from acclimate.configs.hypernetwork import RIVALS, NetworkConfig
from acclimate.data.task_library import SplitLibrary, read_library
from acclimate.errors import UsageError
from acclimate.evaluation.arms import Scores, compared, corpora_of, gains, groups_of, means
from acclimate.evaluation.task_scores import collapse
from acclimate.files import hash_config, hash_folder, work_folder, write_jsonl, write_text
from acclimate.formats.sources import ModelSource
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionVectors, batch_of
from acclimate.models.hypernetwork.layers import QUERY_VECTOR, Weights, of_task
from acclimate.models.hypernetwork.reference_points import MIXINGS, map_from_pairs, map_from_texts
from acclimate.models.hypernetwork.saving import TrainedNetwork, load_network
from acclimate.progress import progress, say
from acclimate.report import hypernetwork_page
from acclimate.runs.resolve import find_base
from acclimate.runs.run_folder import CACHE, PAGE_FILE
from acclimate.runs.step import Work, step
from acclimate.training.chosen_by_pairs import Chosen, chosen_by_pairs, chosen_summary
from acclimate.training.held_out_tasks import CONDITIONS, HeldOutTasks, encode_drawn, held_out
from acclimate.training.kept_scores import KeptScores
from acclimate.training.network_training import Adapted, shared_weights
from acclimate.training.own_adapters import OwnAdapters, mixed
from acclimate.training.quality_curve import curve_summary, quality_curve
from acclimate.training.task_draws import encode_library

BASE, MULTI_TASK, PREFIX, ORACLE = "base", "multi-task", "description before the query", "own adapter"
MAIN = "description + 8 pairs"
CONTROLS = ("shuffled", "mean")
LOADED_CALLS = 5
MOST_REFERENCES = 20
"""Tasks of a group on which references are measured that take seconds each."""
MOST_CHOICES = 10
"""Tasks of a group on which a choice by pairs is played where documents are changed, too: a minute each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is measured."""

    trained: Mapping[str, TrainedNetwork]
    """Name of the folder -> network."""
    tasks: Path
    work: Path
    kept: KeptScores
    """What was measured before an interruption."""
    references: bool
    config: RunConfig

    @property
    def first(self) -> TrainedNetwork:
        return next(iter(self.trained.values()))

    @property
    def generators(self) -> list[str]:
        """Names of the networks that read a condition."""
        return [name for name, one in self.trained.items() if one.network.architecture.generator not in RIVALS]

    @property
    def rivals(self) -> list[str]:
        """Names of the others, which are one adapter for all tasks."""
        return [name for name in self.trained if name not in self.generators]


def hypernetwork_evaluate(
    hypernetworks: Sequence[Path], tasks: Path, out: Path, config: RunConfig, *, references: bool = True
) -> dict[str, Any]:
    """Measure hypernetworks of one base, and rivals that were trained as long, on a library's held-out tasks.

    Args:
        hypernetworks: folders that `hypernetwork train` wrote.
        tasks: the library's folder.
        out: the folder to write: report.json, report.html, per_task.jsonl.
        config: where the base is, `seed`, `evaluate.sign_flips`, `evaluate.confidence`.
        references: measure what takes minutes, too: the description put before the query; for maps on query vectors
            an adapter trained on the task itself (both on a sample of the tasks), mixtures of such adapters of the
            training tasks, and what `generate` would choose by a user's pairs.

    Returns:
        what report.json holds: "arms" (group -> arm -> measures), "gains" (group -> arm -> difference to each rival),
        "chart" (own adapter and generators on the same tasks), "chosen" (by pairs), "collapse" and "generation_s" by
        hypernetwork.

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
    held = held_out(library, documents_too=any(one.sides == "both" for one in trained.values()))
    settings = {**used(config, "hypernetwork-evaluate"), "references": references}
    inputs = {
        "tasks": hash_folder(tasks),
        **{name: hash_folder(folder) for name, folder in zip(trained, hypernetworks, strict=True)},
    }
    work = work_folder(out) / inputs[hypernetworks[0].name][:12]
    measured = hash_config({"settings": settings, "inputs": inputs, "held": list(held)})
    asked = _Asked(
        trained=trained,
        tasks=tasks,
        work=work,
        kept=KeptScores(work / measured[:12]),
        references=references,
        config=config,
    )

    def make() -> Work[dict[str, Any]]:
        return _evaluated(asked, source, library, held, out.name)

    reads: list[str | Path] = [*hypernetworks, tasks]
    return step("hypernetwork evaluate", out, settings, inputs, make, seconds="hypernetwork_evaluate_s", reads=reads)


def _evaluated(
    asked: _Asked, source: ModelSource, library: SplitLibrary, held: Sequence[int], name: str
) -> Work[dict[str, Any]]:
    """Measure everything; what is left to do is to write it."""
    world, first = _world(asked, source, library.only(held)), asked.first
    own = _own_adapters(world, asked) if asked.references and QUERY_VECTOR in first.shared else None
    scores = _headroom(world, asked)
    if own is not None:
        scores |= _own(world, own, asked, library)
    _say_headroom(scores)
    found: dict[str, Any] = {"curve": {}, "collapse": {}, "generation_s": {}}
    chosen: dict[str, list[Chosen]] = {}
    for network in asked.generators:
        trained = asked.trained[network]
        scores |= _measured(world, network, trained, asked.kept, found)
        if asked.references:
            few = world if trained.sides == "query" else world.only(world.sample(MOST_CHOICES))
            chosen[network] = chosen_by_pairs(few, trained, network, asked.kept)
        if own is not None and not found["curve"]:
            found["curve"][network] = _curve(world, own, network, trained)
    report = {
        "base": first.base,
        "generators": {network: one.network.architecture.generator for network, one in asked.trained.items()},
        **_summary(world.library, scores, chosen, asked),
        **found,
    }
    return Work(lambda folder: _write(folder, name, report, scores, chosen, world.library))


def _world(asked: _Asked, source: ModelSource, part: SplitLibrary) -> HeldOutTasks:
    """Encode the held-out tasks' texts: of those of the training, without references, only what conditions need."""
    encoder = Encoder.open(source, asked.first.use, **asked.config.machine)
    seed, cache = asked.config.seed, work_folder(asked.tasks) / CACHE
    tested = encode_library(encoder, part.test, cache)
    if asked.references:
        shown = encode_library(encoder, part.train, cache)
    else:
        shown = encode_drawn(encoder, part, tested, list(CONDITIONS.values()), seed)
    return HeldOutTasks(encoder, part, shown, tested, seed, asked.work / CACHE)


def _headroom(world: HeldOutTasks, asked: _Asked) -> Scores:
    """Base, rivals without a condition of their own, closed forms: what a generator has to be better than."""
    count, first, kept = len(world.library.facts), asked.first, asked.kept
    scores: Scores = {BASE: world.score([None] * count)}
    if first.shared:
        adapters, both = [first.shared] * count, first.sides == "both"
        scores[MULTI_TASK] = kept.arm(MULTI_TASK, partial(world.score, adapters, both))
    for name in asked.rivals:
        one = asked.trained[name]
        adapter, both = shared_weights(one.network), one.sides == "both"
        if one.network.architecture.generator == "instruction-prefix":
            other = f"{name}, shuffled"
            scores[name] = kept.arm(f"rival {name}", partial(world.prefixed, adapter, both))
            scores[other] = kept.arm(f"rival {other}", partial(world.prefixed, adapter, both, world.exchanged()))
        else:
            scores[name] = kept.arm(f"rival {name}", partial(world.score, [adapter] * count, both))
    for pairs in (8, 32):
        maps = [_closed_form(condition) for condition in world.conditions(False, pairs, 0)]
        scores[f"closed-form map, {pairs} pairs"] = world.score(maps)
    scores["centred on 16 texts"] = world.score([_centred(condition) for condition in world.conditions(False, 0, 16)])
    if asked.references:
        few = world.only(world.sample(MOST_REFERENCES))
        scores[PREFIX] = kept.arm(PREFIX, partial(few.prefixed, None))
    return scores


def _say_headroom(scores: Scores) -> None:
    for arm, found in scores.items():
        mean = float(np.mean([row.ndcg for row in found.values()]))
        say(f"headroom: {arm}: NDCG@10 {mean:.3f} ({len(found)} tasks)")


def _closed_form(condition: ConditionVectors) -> Adapted:
    assert condition.query_PD is not None and condition.document_PD is not None  # pairs were asked for
    return of_task(map_from_pairs(torch.from_numpy(condition.query_PD), torch.from_numpy(condition.document_PD)), 0)


def _centred(condition: ConditionVectors) -> Adapted:
    assert condition.text_SD is not None  # texts were asked for
    return of_task(map_from_texts(torch.from_numpy(condition.text_SD)), 0)


def _own_adapters(world: HeldOutTasks, asked: _Asked) -> OwnAdapters:
    """What own adapters are trained with: the sizes and the multi-task adapter of the first hypernetwork."""
    first = asked.first
    sizes = {name: first.metrics[name] for name in ("through", "shared_rank", "own_rank", "learning_rate")}
    return OwnAdapters(
        encoder=world.encoder,
        config=NetworkConfig(**sizes),
        shared=first.shared,
        seed=asked.config.seed,
        folder=asked.work / "own",
    )


def _own(world: HeldOutTasks, own: OwnAdapters, asked: _Asked, library: SplitLibrary) -> Scores:
    """An adapter trained on each of some held-out tasks, and mixtures of those of all training tasks."""
    cache = work_folder(asked.tasks) / CACHE
    few = world.only(world.sample(MOST_REFERENCES))
    scores: Scores = {ORACLE: few.score(own.train(few.library.train, few.shown, "own adapters"))}
    training = library.only(library.numbers("train")).train
    vectors = encode_library(world.encoder, training, cache)
    adapters = own.train(training, vectors, "training tasks' adapters")
    conditions = world.conditions(True, 0, 0)
    for mixing in MIXINGS:
        weights = mixed(mixing, conditions, vectors.descriptions, adapters, 2 * own.config.shared_rank)
        scores[f"{mixing} of adapters"] = world.score([of_task(weights, number) for number in range(len(conditions))])
    return scores


def _curve(world: HeldOutTasks, own: OwnAdapters, name: str, trained: TrainedNetwork) -> dict[str, Any]:
    """Quality against seconds, from what one hypernetwork generates and from nothing."""
    with torch.inference_mode():
        weights = trained.network(batch_of(world.conditions(*CONDITIONS[MAIN]), world.encoder.use.dim))
    generated = [of_task(weights, number) for number in range(len(world.library.facts))]
    return curve_summary(quality_curve(world, own, generated, name))


def _measured(
    world: HeldOutTasks, name: str, trained: TrainedNetwork, kept: KeptScores, found: dict[str, Any]
) -> Scores:
    """One hypernetwork with every condition and control."""
    network, dim, both = trained.network, world.encoder.use.dim, trained.sides == "both"
    count = len(world.library.facts)
    main = world.conditions(*CONDITIONS[MAIN])
    generated: dict[str, Weights] = {}
    with torch.inference_mode():
        for condition, asked in CONDITIONS.items():
            generated[condition] = network(batch_of(world.conditions(*asked), dim))
        generated["shuffled"] = network(batch_of([main[place] for place in world.exchanged()], dim))
        rows = trained.known.parts.get("description")
        if rows is not None:
            known = [ConditionVectors(description_D=row_D) for row_D in rows[0]]
            mean_1C = network.condition(batch_of(known, dim)).mean(0, keepdim=True)
            generated["mean"] = network.from_condition(mean_1C)
    scores: Scores = {}
    with progress(f"measure {name}", len(generated), "conditions") as advance:
        for condition, weights in generated.items():
            made = [of_task(weights, number) for number in range(1 if condition == "mean" else count)]
            adapters = made if len(made) == count else made * count  # one for all tasks encodes a text once
            arm = f"{name}, {condition}"
            scores[arm] = kept.arm(arm, partial(world.score, adapters, both))
            advance(1)
    updates = [of_task(generated[MAIN], number) for number in range(count)]
    if trained.shared and count > 1:
        found["collapse"][name] = collapse(updates, trained.shared)
        if found["collapse"][name]["collapsed"]:
            say(f"warning: {name} generates one adapter for all tasks: its condition has no effect")
    found["generation_s"][name] = _seconds(trained, main[0], dim)
    return scores


def _seconds(trained: TrainedNetwork, condition: ConditionVectors, dim: int) -> dict[str, float]:
    """Seconds from vectors of a condition to weights: the first call and the median of later ones."""
    batch, taken = batch_of([condition], dim), []
    with torch.inference_mode():
        for _ in range(LOADED_CALLS):
            started = time.perf_counter()
            trained.network(batch)
            taken.append(time.perf_counter() - started)
    return {"first": round(taken[0], 5), "later": round(float(np.median(taken[1:])), 5)}


def _summary(
    part: SplitLibrary, scores: Scores, chosen: Mapping[str, Sequence[Chosen]], asked: _Asked
) -> dict[str, Any]:
    """Means of each arm, what each hypernetwork gains over its rivals, by group and over all; chart and choices."""
    groups, evaluate = groups_of(part.facts), asked.config.evaluate
    corpora = corpora_of(part.facts)
    how: dict[str, Any] = {"flips": evaluate.sign_flips, "confidence": evaluate.confidence, "seed": asked.config.seed}
    rivals = {
        f"{name}, {MAIN}": [BASE, MULTI_TASK, *asked.rivals, PREFIX, *(f"{name}, {control}" for control in CONTROLS)]
        for name in asked.generators
    }
    shown = {"base": BASE, "own adapter": ORACLE, **{name: f"{name}, {MAIN}" for name in asked.generators}}
    return {
        "arms": {group: means(scores, tasks) for group, tasks in groups.items()},
        "gains": {group: gains(scores, tasks, rivals, **how) for group, tasks in groups.items()},
        "chart": compared(scores, shown) if ORACLE in scores else None,
        "chosen": {name: chosen_summary(rows, {**groups, **corpora}, **how) for name, rows in chosen.items()},
        "confidence": evaluate.confidence,
        "groups": {group: len(tasks) for group, tasks in groups.items()},
    }


def _write(
    folder: Path,
    name: str,
    report: dict[str, Any],
    scores: Scores,
    chosen: Mapping[str, Sequence[Chosen]],
    part: SplitLibrary,
) -> dict[str, Any]:
    rows = [
        {
            **asdict(facts),
            "scores": {arm: asdict(found[facts.name]) for arm, found in scores.items() if facts.name in found},
            "chosen": {
                network: [asdict(row) for row in found if row.task == facts.name] for network, found in chosen.items()
            },
        }
        for facts in part.facts
    ]
    write_jsonl(folder / "per_task.jsonl", rows)
    write_text(folder / PAGE_FILE, hypernetwork_page.render(name, report))
    return report
