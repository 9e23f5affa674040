"""From a user's condition to an adapter, without training.

`NetworkHypernetwork` has learned to, `MixedAdapters` mixes finished adapters, `PairsMap` solves for a map. All are one
protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from acclimate.errors import ModelError, UsageError
from acclimate.formats.facts import check_base
from acclimate.models.adapter import Adapter
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import Condition, ConditionVectors, batch_of, encode_condition
from acclimate.models.hypernetwork.condition_net import Whitening
from acclimate.models.hypernetwork.layers import QUERY_VECTOR, Weights, of_task
from acclimate.models.hypernetwork.reference_points import Mixing, map_from_pairs, mixture
from acclimate.models.hypernetwork.saving import TrainedNetwork
from acclimate.models.query_map import QueryMap
from acclimate.types import Sides


class Hypernetwork(Protocol):
    """Makes an adapter for a condition, without training."""

    def generate(self, condition: Condition) -> Adapter | QueryMap:
        """Generate an adapter, or a map on query vectors.

        Raises:
            UsageError: the condition has nothing that this one reads.
        """
        ...


class NetworkHypernetwork:
    """A trained network with the base that it was trained for.

    Args:
        trained: as `load_network` gives it.
        encoder: its base, without an adapter, using texts as the training did.

    Raises:
        ModelError: another base, one with an adapter, or one that uses texts otherwise.
    """

    def __init__(self, trained: TrainedNetwork, encoder: Encoder) -> None:
        check_base(trained.base, encoder.source.identity, "the hypernetwork")
        encoder.require_one_transformer()
        if encoder.adapter is not None:
            raise ModelError("the encoder carries an adapter", fix="Load the base alone.")
        mine, theirs = trained.use.to_json(), encoder.use.to_json()
        if different := [name for name in mine if mine[name] != theirs[name]]:
            name = different[0]
            raise ModelError(
                f"the hypernetwork was trained with {name} = {mine[name]!r}, the base is loaded with {theirs[name]!r}",
                fix="Load the base as the hypernetwork uses it.",
            )
        self.trained, self.encoder = trained, encoder

    def generate(self, condition: Condition) -> Adapter | QueryMap:
        """Generate an adapter, or with a network over query vectors their map."""
        vectors = encode_condition(self.encoder, condition)
        with torch.inference_mode():
            weights = self.trained.network(batch_of([vectors], self.encoder.use.dim))
        return bound(weights, self.encoder, self.trained.sides)


class MixedAdapters:
    """Mixtures of the adapters of the tasks that a hypernetwork was trained on, by the likeness of descriptions.

    Args:
        mixing: how.
        encoder: their base.
        training: each task's condition; only the description is read.
        adapters: layer -> (A [r, I], B [O, r]) of each task.
        rank: of the result.
        sides: what the adapters change.
    """

    def __init__(
        self,
        mixing: Mixing,
        encoder: Encoder,
        training: Sequence[ConditionVectors],
        adapters: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
        rank: int,
        sides: Sides,
    ) -> None:
        self.mixing, self.encoder, self.adapters, self.rank, self.sides = mixing, encoder, adapters, rank, sides
        self.whitening = Whitening(encoder.use.dim)
        described_ND = batch_of(training, encoder.use.dim).description_TD
        self.whitening.learn(described_ND)
        self.training_ND = self.whitening(described_ND)

    def generate(self, condition: Condition) -> Adapter | QueryMap:
        """Mix by the description.

        Raises:
            UsageError: the condition has none.
        """
        description_D = encode_condition(self.encoder, condition).description_D
        if description_D is None:
            raise UsageError("the condition has no description, by which adapters are mixed", fix="Describe the task.")
        description_TD = self.whitening(torch.from_numpy(description_D)[None])
        weights = mixture(self.mixing, description_TD, self.training_ND, self.adapters, self.rank)
        return bound(weights, self.encoder, self.sides)


class PairsMap:
    """The closed-form map from example pairs on query vectors: no training tasks, no network.

    Args:
        encoder: the base.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def generate(self, condition: Condition) -> Adapter | QueryMap:
        """Solve for the map.

        Raises:
            UsageError: the condition has no pairs.
        """
        vectors = encode_condition(self.encoder, condition)
        if vectors.query_PD is None or vectors.document_PD is None:
            raise UsageError("the condition has no example pairs, which the map is computed from", fix="Give some.")
        weights = map_from_pairs(torch.from_numpy(vectors.query_PD), torch.from_numpy(vectors.document_PD))
        return bound(weights, self.encoder, "query")


def bound(weights: Weights, encoder: Encoder, sides: Sides) -> Adapter | QueryMap:
    """Make the adapter, or the map, of weights of one task."""
    modules = {
        name: (A_rI.detach().clone(), B_Or.detach().clone()) for name, (A_rI, B_Or) in of_task(weights, 0).items()
    }
    source = encoder.source
    if QUERY_VECTOR in modules:
        A_rD, B_Dr = modules[QUERY_VECTOR]
        return QueryMap(source.id, source.sha256, A_rD, B_Dr, encoder.use, source.files.normalise)
    rank = max(len(A_rI) for A_rI, _ in modules.values())
    return Adapter(
        base_id=source.id,
        base_sha256=source.sha256,
        rank=rank,
        alpha=float(rank),
        modules=modules,
        use=encoder.use,
        normalise=source.files.normalise,
        sides=sides,
    )
