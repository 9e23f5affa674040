"""From a library of tasks to a hypernetwork: the multi-task adapter first, then the generator that starts at it.

The rivals go the same way for as many steps: the multi-task adapter alone, and one with the description before every
query. These are other texts for every task, so each task has a sample of them.

Shapes: A [r, I] and B [O, r] of a layer, r its rank, I and O its features in and out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acclimate.configs import TrainConfig
from acclimate.configs.hypernetwork import GeneratorName, HypernetworkConfig, NetworkConfig
from acclimate.data.descriptions import Language, unknown_descriptions
from acclimate.data.instructed import instructed_library
from acclimate.data.relevance import TaskLibrary
from acclimate.files import hash_config
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import Part
from acclimate.models.hypernetwork.known import KnownConditions, Rows, summaries
from acclimate.models.hypernetwork.layers import Layer, layers_of, query_vector_layers
from acclimate.models.hypernetwork.network import Architecture, Network
from acclimate.runs.run_folder import CACHE
from acclimate.training.checkpoint import Progress
from acclimate.training.fit import LossFn
from acclimate.training.hypernetwork import (
    AdapterObjective,
    query_map_objective,
    reconstruction_objective,
    train_network,
)
from acclimate.training.task_draws import LibraryVectors, TaskDraws, draw_condition, encode_library, task_schedule

SHARED, RECONSTRUCTION = "shared", "reconstruction"
"""Names of the trainings before the generator's: of the multi-task adapter, and towards each task's own adapter."""
ALONE_STEPS, ALONE_QUERIES = 150, 64
"""Length of the training of one task's own adapter, and queries of a step."""
INSTRUCTED_QUERIES = 128
"""Queries of each task that get its description before them: a map on query vectors needs all of them encoded."""
KNOWN_SAMPLES, KNOWN_SIZE = 8, 8
"""Samples of a family's queries and documents that distances are taken from, and texts in each."""

Adapted = Mapping[str, tuple[Tensor, Tensor]]
"""Layer -> (A [r, I], B [O, r])."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkTraining:
    """What a hypernetwork is trained with, and where its progress lies."""

    encoder: Encoder
    """The base."""
    library: TaskLibrary
    """The tasks that are trained on."""
    vectors: LibraryVectors
    """Vectors of its texts."""
    config: NetworkConfig
    seed: int
    folder: Path
    """Gets checkpoints and metrics, a folder for each training."""
    languages: tuple[Language, ...] = ("en",)
    """Those of the library's descriptions."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that adapters are generated for."""
        if self.config.through == "query-vector":
            return query_vector_layers(self.encoder.use.dim)
        return layers_of(self.encoder.model, last_blocks=self.config.last_blocks)

    def shared(self) -> Adapted:
        """Train the multi-task adapter."""
        network = self._network("multi-task", None)
        self._train(network, self.config.training(shared=True), SHARED)
        return shared_weights(network)

    def generator(self, shared: Adapted, own: Sequence[Adapted] = ()) -> Network:
        """Train the hypernetwork, from the multi-task adapter on; in evaluation mode.

        Args:
            shared: the multi-task adapter.
            own: an adapter trained on each task, to be reconstructed; for that objective and the warm-up.
        """
        network = self._network(self.config.generator, shared)
        described = [torch.from_numpy(wordings_WD) for wordings_WD in self.vectors.descriptions]
        network.learn_statistics(
            described, torch.from_numpy(self.vectors.query_ND), torch.from_numpy(self.vectors.document_MD)
        )
        if own:
            known = replace(self.config.training(shared=False), unknown_share=0.0)  # there is no adapter of the others
            self._train(network, known, RECONSTRUCTION, own)
        if self.config.objective != "reconstruction":
            asked = self._instructed() if self.config.generator == "instruction-prefix" else self._with_unknown()
            asked._train(network, self.config.training(shared=False), self.config.generator)
        return network.eval().requires_grad_(False)

    def _with_unknown(self) -> NetworkTraining:
        """The same with descriptions of what no task is about."""
        unknown_WD = self.encoder.encode(unknown_descriptions(self.languages), "query")
        return replace(self, vectors=replace(self.vectors, unknown_WD=unknown_WD))

    def _instructed(self) -> NetworkTraining:
        """The same with the description before every query."""
        generator = np.random.default_rng(self.seed)
        asked = [generator.permutation(task.usable)[:INSTRUCTED_QUERIES] for task in self.library.tasks]
        library = instructed_library(self.library, asked, self.seed)
        return replace(self, library=library, vectors=encode_library(self.encoder, library, self.folder / CACHE))

    def alone(self, start: Adapted, steps: int = ALONE_STEPS) -> tuple[Adapted, float]:
        """Train an adapter for the library's tasks together, of which there is one as a rule.

        Args:
            start: from where it goes on.
            steps: of the training.

        Returns:
            the adapter, and the seconds of its steps.
        """
        config = replace(
            self.config.training(shared=True),
            parts=("description",),
            tasks_per_step=1,
            queries_per_task=ALONE_QUERIES,
            steps=steps,
        )
        network = self._network("multi-task", start)
        seconds = self._train(network, config, "alone").seconds
        return shared_weights(network), seconds

    def known(self, kinds: Mapping[str, str]) -> KnownConditions:
        """Collect the vectors from which a condition's distance is told.

        Args:
            kinds: name of a task -> its definition: tasks of one definition are described by the same words.
        """
        numbers = {kind: number for number, kind in enumerate(sorted(set(kinds.values())))}
        described = [
            (wording_D, numbers[kinds[task.name]])
            for task, wordings in zip(self.library.tasks, self.vectors.descriptions, strict=True)
            for wording_D in wordings
        ]
        found: dict[Part, list[tuple[Any, int]]] = {"description": described, "pairs": [], "texts": []}
        first = {task.family: number for number, task in reversed(list(enumerate(self.library.tasks)))}
        generator = np.random.default_rng(self.seed)
        for kind, number in enumerate(first.values()):
            task = self.library.tasks[number]
            for _ in range(KNOWN_SAMPLES):
                condition = draw_condition(
                    task,
                    self.vectors,
                    self.vectors.descriptions[number],
                    generator,
                    queries=generator.permutation(task.usable),
                    described=False,
                    pairs=KNOWN_SIZE,
                    texts=KNOWN_SIZE,
                )
                for part, vector_D in summaries(condition).items():
                    found[part].append((vector_D, kind))
        return KnownConditions({part: _rows(rows) for part, rows in found.items() if rows})

    def _network(self, generator: GeneratorName, shared: Adapted | None) -> Network:
        sizes = Architecture(
            generator=generator,
            dim=self.encoder.use.dim,
            shared_rank=self.config.shared_rank,
            own_rank=self.config.own_rank,
        )
        return Network(sizes, self.layers, shared, self.seed)

    def _train(self, network: Network, config: HypernetworkConfig, name: str, own: Sequence[Adapted] = ()) -> Progress:
        schedule = task_schedule(len(self.library.tasks), config, self.seed)
        draws = TaskDraws(self.library, self.vectors, schedule, config)
        identity = {
            "network": asdict(self.config),
            "training": asdict(config),
            "tasks": [task.name for task in self.library.tasks],
            "seed": self.seed,
            "base": self.encoder.fingerprint,
        }
        dtype = "float32" if self.config.through == "query-vector" else str(self.encoder.dtype).removeprefix("torch.")
        network.to(self.encoder.device)
        state = train_network(
            network,
            reconstruction_objective(network, draws, own) if own else self._loss(network, draws, config),
            schedule,
            config,
            self.folder / name,
            hash_config(identity),
            dtype,
        )
        network.to("cpu")  # where conditions are read, and adapters are written
        return state

    def _loss(self, network: Network, draws: TaskDraws, config: HypernetworkConfig) -> LossFn:
        if self.config.through == "query-vector":
            return query_map_objective(network, draws, self.vectors, config)
        return AdapterObjective(network, self.encoder, draws, self.vectors, config, TrainConfig(), self.folder / CACHE)


def shared_weights(network: Network) -> Adapted:
    """The one adapter of a multi-task network."""
    generator: Any = network.generator
    return {name: (A_rI.detach(), B_Or.detach()) for name, (A_rI, B_Or) in generator.shared.weights().items()}


def _rows(rows: list[tuple[Any, int]]) -> Rows:
    vectors_ND = np.stack([vector_D for vector_D, _ in rows]).astype(np.float32)
    return vectors_ND, np.array([kind for _, kind in rows], np.int64)
