"""An adapter of its own for each of many tasks, from the multi-task adapter on: oracles, and what mixtures are made of.

Every training leaves its checkpoint, so that a second start goes on with the next task.

Shapes: D vector size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from acclimate.configs.hypernetwork import NetworkConfig
from acclimate.data.relevance import RelevanceTask, TaskLibrary
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionVectors, batch_of
from acclimate.models.hypernetwork.condition_net import Whitening
from acclimate.models.hypernetwork.layers import Weights
from acclimate.models.hypernetwork.reference_points import Mixing, mixture
from acclimate.progress import progress
from acclimate.retrieval.top_k import Vectors
from acclimate.training.network_training import Adapted, NetworkTraining
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

    def train(
        self, library: TaskLibrary, vectors: LibraryVectors, label: str, pairs: int | None = None
    ) -> list[Adapted]:
        """Train one for each task of a library.

        Args:
            library: the tasks.
            vectors: of its texts.
            label: what the progress bar says, and the folder within `folder`.
            pairs: labelled queries that each is trained on, drawn at random; all if None.

        Raises:
            Interrupted: ctrl-C.
            StorageError: nothing can be written.
        """
        found = []
        with progress(label, len(library.tasks), "tasks") as advance:
            for number, task in enumerate(library.tasks):
                training = NetworkTraining(
                    encoder=self.encoder,
                    library=_alone(library, task, pairs, self.seed),
                    vectors=replace(vectors, descriptions=(vectors.descriptions[number],)),
                    config=self.config,
                    seed=self.seed,
                    folder=self.folder / label / str(number),
                )
                found.append(training.alone(self.shared))
                advance(1)
        return found


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


def _alone(library: TaskLibrary, task: RelevanceTask, pairs: int | None, seed: int) -> TaskLibrary:
    """The one task, with a few of its queries where so many are asked for."""
    if pairs is not None:
        order = np.random.default_rng([seed, pairs]).permutation(task.usable)
        task = replace(task, asking=order[:pairs])
    return TaskLibrary(library.queries, library.documents, (task,))
