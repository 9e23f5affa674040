"""Instant adapters on a family of synthetic tasks: does a generator use its condition, on combinations it never saw?

Texts with six attributes; a task says which of them have to agree (`acclimate.data.attributes`). Eleven combinations
are held out; their test texts are new, and so are the descriptions' wordings. For each held-out task, NDCG@10 of

    base, multi-task    without a condition
    description, 8 pairs, 32 pairs, description + 8 pairs
    shuffled            another held-out task's description
    mean                the mean of all training tasks' conditions

and of the reference points: the training tasks' own adapters, the nearest, mixed by a softmax, or by ridge regression;
the closed-form map from pairs; an adapter trained on the held-out task itself (oracle).

    python benchmarks/instant.py --out FOLDER                    query-vector maps: MiniLM's vectors, nothing to encode
    python benchmarks/instant.py --out FOLDER --sides both       the map on documents too
    python benchmarks/instant.py --out FOLDER --through encoder  LoRA on all linear layers of MiniLM

Every arm is kept in FOLDER once it is done; a second start goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acclimate.configs import TrainConfig
from acclimate.configs.hypernetwork import HypernetworkConfig
from acclimate.core import lora
from acclimate.data.attributes import attribute_tasks, split_tasks
from acclimate.data.relevance import TaskLibrary
from acclimate.evaluation.measures import evaluate_run
from acclimate.files import hash_config
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionVectors, batch_of
from acclimate.models.hypernetwork.condition_net import Whitening
from acclimate.models.hypernetwork.layers import Weights, layers_of, mapped, of_task, query_vector_layers
from acclimate.models.hypernetwork.network import GENERATORS, Architecture, GeneratorName, Network
from acclimate.models.hypernetwork.reference_points import MIXINGS, map_from_pairs, mixture
from acclimate.models.hypernetwork.saving import TrainedNetwork, load_network, save_network
from acclimate.progress import progress
from acclimate.retrieval.rank import rank_vectors
from acclimate.training.fit import LossFn
from acclimate.training.hypernetwork import AdapterObjective, query_map_objective, train_network
from acclimate.training.task_draws import (
    LibraryVectors,
    TaskDraws,
    draw_condition,
    encode_library,
    task_schedule,
)
from common import machine, once, processor, table

TRAINING_TEXTS = (1500, 1500)
TEST_TEXTS = (100, 1000)
"""Queries and documents."""
TRAINED_WORDINGS = 6
"""Wordings of a description that training sees; the others are what the test uses."""
TOP = 10
TARGETS = {
    ("core-modulation", "description"): (">=", 0.95),
    ("text-to-lora", "description"): (">=", 0.93),
    ("drag-and-drop", "description"): (">=", 0.80),
    ("multi-task", "multi-task"): ("<=", 0.50),
}
CONTROLS = {"shuffled": ("<=", 0.35), "mean": ("<=", 0.45)}
QUERIES = 16
"""Of each task in a step."""
ALONE_STEPS, ALONE_QUERIES = 150, 64
"""Of the training of one task's own adapter."""
REFERENCES = "references"
ARMS = (*(name for name in GENERATORS if name != "instruction-prefix"), REFERENCES)
PAIRS = {"8 pairs": (">=", 0.65), "32 pairs": (">=", 0.80)}
"""Targets of pairs hold for both sides."""


@dataclass(frozen=True)
class Setup:
    """One series of arms."""

    through: str
    sides: Any
    seed: int
    steps: int
    shared_steps: int
    rank: int
    own_rank: int
    learning_rate: float
    shared_rate: float


class World:
    """Texts, tasks and vectors of a seed."""

    def __init__(self, setup: Setup, encoder: Encoder) -> None:
        self.setup, self.encoder = setup, encoder
        everything = attribute_tasks(*TRAINING_TEXTS, seed=setup.seed)
        split = split_tasks(everything, setup.seed)
        self.training, self.shown = everything.only(split.trained), everything.only(split.held_out)
        self.test = attribute_tasks(*TEST_TEXTS, seed=setup.seed + 1000).only(split.held_out)
        self.layers = query_vector_layers(encoder.use.dim) if setup.through == "vector" else layers_of(encoder.model)

    @cached_property
    def vectors(self) -> LibraryVectors:
        """Of the training tasks, with the wordings of training."""
        found = encode_library(self.encoder, self.training)
        return replace(found, descriptions=tuple(wordings[:TRAINED_WORDINGS] for wordings in found.descriptions))

    @cached_property
    def test_vectors(self) -> LibraryVectors:
        """Of the held-out tasks' test texts, with the other wordings."""
        found = encode_library(self.encoder, self.test)
        return replace(found, descriptions=tuple(wordings[TRAINED_WORDINGS:] for wordings in found.descriptions))

    def conditions(self, *, described: bool = False, pairs: int = 0) -> list[ConditionVectors]:
        """One for each held-out task; pairs are labelled training texts."""
        generator = np.random.default_rng([self.setup.seed, pairs])
        return [
            draw_condition(
                task,
                self.vectors,
                self.test_vectors.descriptions[number],
                generator,
                queries=generator.permutation(task.usable),
                described=described,
                pairs=pairs,
                texts=0,
            )
            for number, task in enumerate(self.shown.tasks)
        ]


def main() -> None:
    """Run all arms of all seeds and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--through", choices=["vector", "encoder"], default="vector")
    parser.add_argument("--sides", choices=["query", "both"], default="query")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--shared-steps", type=int, default=300)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--own-rank", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--shared-rate", type=float, default=2e-3)
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    print(f"{processor()}; {machine()}")
    encoder = None if arguments.table else Encoder.load(device="cpu", dtype="float32")
    names = [field for field in Setup.__dataclass_fields__ if field != "seed"]
    setup = Setup(**{name: getattr(arguments, name) for name in names}, seed=0)
    results: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        of_seed = replace(setup, seed=seed)
        world = None if encoder is None else World(of_seed, encoder)
        folder = arguments.out / hash_config(asdict(of_seed))[:12]
        for name in ["multi-task", *(name for name in arguments.arms if name != "multi-task")]:
            work = references if name == REFERENCES else partial(arm, generator=name)
            if world is not None:
                once(folder / name, partial(work, world, folder))
            path = folder / name / "result.json"
            if path.exists():
                results.append({"arm": name, "seed": seed, **json.loads(path.read_text())})
    show(results, arguments.sides)


def arm(world: World, folder: Path, generator: GeneratorName) -> dict[str, Any]:
    """Train one network, keep it, and measure it on the held-out tasks."""
    setup = world.setup
    network = new_network(world, generator, folder)
    shared = generator == "multi-task"
    config = HypernetworkConfig(
        parts=("description", "pairs"),
        sides=setup.sides,
        queries_per_task=QUERIES,
        steps=setup.shared_steps if shared else setup.steps,
        learning_rate=setup.shared_rate if shared else setup.learning_rate,
    )
    schedule = task_schedule(len(world.training.tasks), config, setup.seed)
    draws = TaskDraws(world.training, world.vectors, schedule, config)
    loss_fn = loss_of(world, network, draws, config, folder)
    identity = hash_config({"setup": asdict(setup), "config": asdict(config), "generator": generator})
    started = time.perf_counter()
    train_network(network, loss_fn, schedule, config, folder / generator, identity)
    seconds = time.perf_counter() - started
    network.eval()
    source = world.encoder.source
    trained = TrainedNetwork(
        network=network,
        base_id=source.id,
        base_sha256=source.sha256,
        use=world.encoder.use,
        normalise=source.files.normalise,
        sides=setup.sides,
    )
    save_network(folder / generator, trained)
    scores = measured(world, network, base=shared)
    return {"scores": scores, "seconds": round(seconds, 1), "parameters": sum(p.numel() for p in network.parameters())}


def new_network(world: World, generator: GeneratorName, folder: Path) -> Network:
    """A network that starts at the multi-task adapter, where there is one."""
    setup = world.setup
    shared = None if generator == "multi-task" else multi_task(folder)
    sizes = Architecture(
        generator=generator, dim=world.encoder.use.dim, shared_rank=setup.rank, own_rank=setup.own_rank
    )
    network = Network(sizes, world.layers, shared, setup.seed)
    vectors = world.vectors
    described = [torch.from_numpy(wordings_WD) for wordings_WD in vectors.descriptions]
    network.learn_statistics(described, torch.from_numpy(vectors.query_ND), torch.from_numpy(vectors.document_MD))
    return network


def multi_task(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The multi-task adapter that was trained before."""
    generator: Any = load_network(folder / "multi-task").network.generator
    weights: dict[str, tuple[Tensor, Tensor]] = generator.shared.weights()
    return weights


def references(world: World, folder: Path) -> dict[str, Any]:
    """Train an adapter for every task, from the multi-task adapter on; mix those of the training tasks."""
    started = time.perf_counter()
    libraries = {"training": world.training, "oracle": world.shown}
    with progress("tasks", sum(len(library.tasks) for library in libraries.values()), "tasks") as advance:
        alone: dict[str, list[dict[str, tuple[Tensor, Tensor]]]] = {name: [] for name in libraries}
        for name, library in libraries.items():
            for task in library.tasks:
                alone[name].append(trained_alone(world, library.only([task.name]), folder))
                advance(1)
    seconds = time.perf_counter() - started
    whitening = Whitening(world.encoder.use.dim)
    described_ND = torch.from_numpy(np.stack([wordings.mean(0) for wordings in world.vectors.descriptions]))
    whitening.learn(described_ND)
    asked = [condition.description_D for condition in world.conditions(described=True)]
    asked_TD = whitening(torch.from_numpy(np.stack([row for row in asked if row is not None])))
    scores = {}
    for mixing in MIXINGS:
        weights = mixture(mixing, asked_TD, whitening(described_ND), alone["training"], 2 * world.setup.rank)
        scores[f"{mixing}, description"] = score(world, weights)
    if world.setup.through == "vector":
        for pairs in (8, 32):
            batch = batch_of(world.conditions(pairs=pairs), world.encoder.use.dim)
            maps = [map_from_pairs(*both) for both in zip(batch.query_TPD, batch.document_TPD, strict=True)]
            scores[f"closed form, {pairs} pairs"] = score(world, stacked([of_task(weights, 0) for weights in maps]))
    scores["oracle"] = score(world, stacked(alone["oracle"]))
    return {"scores": scores, "seconds": round(seconds, 1), "parameters": 0}


def trained_alone(world: World, library: TaskLibrary, folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter for the one task of a library."""
    setup, name = world.setup, library.tasks[0].name
    config = HypernetworkConfig(
        parts=("description",),
        sides=setup.sides,
        tasks_per_step=1,
        queries_per_task=ALONE_QUERIES,
        steps=ALONE_STEPS,
        learning_rate=setup.shared_rate,
    )
    schedule = task_schedule(1, config, setup.seed)
    sizes = Architecture(generator="multi-task", dim=world.encoder.use.dim, shared_rank=setup.rank)
    network = Network(sizes, world.layers, multi_task(folder), setup.seed)
    vectors = replace(world.vectors, descriptions=world.vectors.descriptions[:1])  # what a multi-task adapter ignores
    draws = TaskDraws(library, vectors, schedule, config)
    loss_fn = loss_of(world, network, draws, config, folder)
    train_network(network, loss_fn, schedule, config, folder / REFERENCES / name, name)
    generator: Any = network.generator
    return {layer: (A.detach(), B.detach()) for layer, (A, B) in generator.shared.weights().items()}


def loss_of(world: World, network: Network, draws: TaskDraws, config: HypernetworkConfig, folder: Path) -> LossFn:
    """The loss of a training through vectors or through the encoder."""
    if world.setup.through == "vector":
        return query_map_objective(network, draws, world.vectors, config)
    return AdapterObjective(network, world.encoder, draws, world.vectors, config, TrainConfig(), folder)


def stacked(modules: Sequence[Mapping[str, tuple[Tensor, Tensor]]]) -> Weights:
    """Weights of several tasks, of one rank each."""
    return {
        name: (torch.stack([one[name][0] for one in modules]), torch.stack([one[name][1] for one in modules]))
        for name in modules[0]
    }


def measured(world: World, network: Network, *, base: bool) -> dict[str, float]:
    """Condition -> mean NDCG@10 over the held-out tasks."""
    dim = world.encoder.use.dim
    described = world.conditions(described=True)
    with torch.no_grad():
        if base:
            zero = {
                layer.name: (torch.zeros(len(described), 1, layer.d_in), torch.zeros(len(described), layer.d_out, 1))
                for layer in world.layers
            }
            return {"base": score(world, zero), "multi-task": score(world, network(batch_of(described, dim)))}
        found = {
            "description": network(batch_of(described, dim)),
            "8 pairs": network(batch_of(world.conditions(pairs=8), dim)),
            "32 pairs": network(batch_of(world.conditions(pairs=32), dim)),
            "description + 8 pairs": network(batch_of(world.conditions(described=True, pairs=8), dim)),
            "shuffled": network(batch_of([*described[1:], described[0]], dim)),
            "mean": network.from_condition(mean_condition(world, network).expand(len(described), -1)),
        }
        with progress("measure", len(found), "conditions") as advance:
            scores = {}
            for name, weights in found.items():
                scores[name] = score(world, weights)
                advance(1)
    return scores


def mean_condition(world: World, network: Network) -> Tensor:
    """[1, C]: the mean over the training tasks' descriptions."""
    rows = [ConditionVectors(description_D=row) for wordings in world.vectors.descriptions for row in wordings]
    return network.condition(batch_of(rows, world.encoder.use.dim)).mean(0, keepdim=True)


def score(world: World, weights: Weights) -> float:
    """Mean NDCG@10 over the held-out tasks, each with its own adapter."""
    library = world.test
    ids = [str(number) for number in range(len(library.documents))]
    scores = []
    for number, task in enumerate(library.tasks):
        queries = task.usable
        query_ND, document_MD = adapted(world, {name: (A[number], B[number]) for name, (A, B) in weights.items()})
        run = rank_vectors([str(query) for query in queries], query_ND[queries], ids, document_MD, TOP)
        scores.append(evaluate_run(run, task.qrels(queries))[0]["ndcg@10"])
    return statistics.fmean(scores)


def adapted(world: World, modules: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the test's queries and documents under an adapter of one task."""
    vectors, both = world.test_vectors, world.setup.sides == "both"
    if world.setup.through == "vector":
        one = {name: (A_rI[None], B_Or[None]) for name, (A_rI, B_Or) in modules.items()}
        query_ND = mapped(torch.from_numpy(vectors.query_ND)[None], one)[0].numpy()
        return query_ND, mapped(torch.from_numpy(vectors.document_MD)[None], one)[
            0
        ].numpy() if both else vectors.document_MD
    encoder = world.encoder.fork()
    lora.attach_weights(encoder.model, modules)
    query_ND = encoder.encode(world.test.queries, "query")
    return query_ND, encoder.encode(world.test.documents, "document") if both else vectors.document_MD


def show(results: Sequence[Mapping[str, Any]], sides: str) -> None:
    """Print the mean over seeds of every arm and condition, with its target."""
    seeds = len({result["seed"] for result in results})
    rows = []
    for name in dict.fromkeys(result["arm"] for result in results):
        of_arm = [result for result in results if result["arm"] == name]
        for condition in of_arm[0]["scores"]:
            values = [result["scores"][condition] for result in of_arm]
            target = TARGETS.get((name, condition)) if sides == "query" else None
            target = target or CONTROLS.get(condition) or (PAIRS.get(condition) if sides == "both" else None)
            value = statistics.fmean(values)
            met = ""
            if target:
                met = "met" if (value >= target[1] if target[0] == ">=" else value <= target[1]) else "missed"
            spread = f"{min(values):.3f} to {max(values):.3f}"
            goal = f"{target[0]} {target[1]:.2f} {met}" if target else ""
            rows.append([name, condition, f"{value:.3f}", spread, goal])
        seconds = statistics.fmean(result["seconds"] for result in of_arm)
        rows.append([name, "(training, s)", f"{seconds:.0f}", "", f"{of_arm[0]['parameters']:,} parameters"])
    print(table(["arm", "condition", f"NDCG@10, {seeds} seeds", "from to", "target"], rows) + "\n")


if __name__ == "__main__":
    main()
