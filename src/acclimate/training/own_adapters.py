"""An adapter of its own for each of many tasks, from the multi-task adapter on: oracles, and what mixtures are made of.

Every training leaves its checkpoint, so that a second start goes on with the next task.

Shapes: W wordings of a description, D vector size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from acclimate.configs.hypernetwork import NetworkConfig
from acclimate.data.relevance import TaskLibrary
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionVectors, batch_of
from acclimate.models.hypernetwork.condition_net import Whitening
from acclimate.models.hypernetwork.layers import Weights
from acclimate.models.hypernetwork.reference_points import Mixing, mixture
from acclimate.progress import progress
from acclimate.retrieval.top_k import Vectors
from acclimate.training.network_training import ALONE_STEPS, Adapted, NetworkTraining
from acclimate.training.task_draws import LibraryVectors


@dataclass(frozen=True, eq=False, kw_only=True)
class OwnAdapters:
    """What own adapters are trained with, and where their progress lies."""

    encoder: Encoder
    config: NetworkConfig
    shared: Adapted
    """The multi-task adapter, from which each goes on."""
    seed: int
    folder: Path
    """Gets the checkpoints; of one multi-task adapter only."""

    def train(self, library: TaskLibrary, vectors: LibraryVectors, label: str) -> list[Adapted]:
        """Train one for each task of a library.

        Args:
            library: the tasks.
            vectors: of its texts.
            label: what the progress bar says, and the folder within `folder`.

        Raises:
            Interrupted: ctrl-C.
            StorageError: nothing can be written.
        """
        found = []
        with progress(label, len(library.tasks), "tasks") as advance:
            for number, task in enumerate(library.tasks):
                one = TaskLibrary(library.queries, library.documents, (task,))
                described = vectors.descriptions[number]
                found.append(self.one(one, vectors, described, f"{label}/{number}", self.shared)[0])
                advance(1)
        return found

    def one(
        self,
        library: TaskLibrary,
        vectors: LibraryVectors,
        described_WD: Vectors,
        name: str,
        start: Adapted,
        steps: int = ALONE_STEPS,
    ) -> tuple[Adapted, float]:
        """Train one for the only task of a library, from any adapter on; with the seconds of its steps."""
        training = NetworkTraining(
            encoder=self.encoder,
            library=library,
            vectors=replace(vectors, descriptions=(described_WD,)),
            config=self.config,
            seed=self.seed,
            folder=self.folder / name,
        )
        return training.alone(start, steps)


def mixed(
    mixing: Mixing,
    conditions: Sequence[ConditionVectors],
    described: Sequence[Vectors],
    adapters: Sequence[Adapted],
    rank: int,
) -> Weights:
    """Mix adapters of training tasks for each condition by its description, whitened over the training tasks.

    Args:
        mixing: how.
        conditions: each with a description.
        described: descriptions [wordings, D] of each training task.
        adapters: of each training task.
        rank: of the result.
    """
    training_ND = torch.from_numpy(np.stack([wordings_WD.mean(0) for wordings_WD in described]))
    whitening = Whitening(training_ND.shape[1])
    whitening.learn(training_ND)
    asked_TD = batch_of(conditions, training_ND.shape[1]).description_TD
    return mixture(mixing, whitening(asked_TD), whitening(training_ND), adapters, rank)
