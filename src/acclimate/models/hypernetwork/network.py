"""Condition network and generator in one module: vectors of conditions -> weights. What trains, and what is saved.

Shapes: T tasks, D vector size, C width of the condition, N vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from acclimate.configs.hypernetwork import GeneratorName
from acclimate.models.hypernetwork.condition import ConditionBatch
from acclimate.models.hypernetwork.condition_net import ConditionNet
from acclimate.models.hypernetwork.core_modulation import CoreModulation
from acclimate.models.hypernetwork.drag_and_drop import DragAndDrop
from acclimate.models.hypernetwork.layers import Layer, SharedAdapter, Weights, new_adapter
from acclimate.models.hypernetwork.text_to_lora import TextToLora


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The sizes of a network: with the layers, all that is needed to build it again."""

    generator: GeneratorName
    dim: int
    """D, of the base's vectors."""
    width: int = 128
    """C, the numbers that a condition becomes."""
    directions: int = 128
    """Learned directions along which example pairs are compared."""
    shared_rank: int = 16
    """Rank of the multi-task adapter, which all tasks share."""
    own_rank: int = 8
    """Ranks beside it: generated ones, or with core modulation directions that only a generated core uses."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class MultiTask(nn.Module):
    """The adapter that all tasks share, whatever their conditions: what a generator has to be better than.

    Of an instruction prefix, too: there the condition is in the text, before every query.
    """

    def __init__(self, shared: SharedAdapter) -> None:
        super().__init__()
        self.shared = shared

    def forward(self, condition_TC: Tensor) -> Weights:
        weights: Weights = self.shared(len(condition_TC))
        return weights


class Network(nn.Module):
    """Conditions -> weights; it starts exactly at the multi-task adapter.

    Args:
        architecture: its sizes.
        layers: which layers get weights.
        shared: the multi-task adapter, of the architecture's `shared_rank`; a new one, which changes nothing, if None.
        seed: draws what is drawn.
    """

    def __init__(
        self,
        architecture: Architecture,
        layers: tuple[Layer, ...],
        shared: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.architecture, self.layers = architecture, layers
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if shared is None:
                shared = new_adapter(layers, architecture.shared_rank, generator)
            self.condition = ConditionNet(architecture.dim, architecture.width, architecture.directions)
            self.generator = GENERATORS[architecture.generator](architecture, layers, shared, generator)

    def forward(self, batch: ConditionBatch) -> Weights:
        return self.from_condition(self.condition(batch))

    def from_condition(self, condition_TC: Tensor) -> Weights:
        """Weights of condition vectors that were computed before, averaged or exchanged."""
        weights: Weights = self.generator(condition_TC)
        return weights

    def learn_statistics(self, descriptions: Sequence[Tensor], query_ND: Tensor, document_ND: Tensor) -> None:
        """Take what conditions are centred and whitened by from the training tasks.

        Args:
            descriptions: vectors [wordings, D] of each training task's descriptions.
            query_ND: vectors of their queries.
            document_ND: vectors of their documents, which sample texts are like.
        """
        kind_N = torch.repeat_interleave(torch.tensor([len(wordings_WD) for wordings_WD in descriptions]))
        self.condition.described.learn_within(torch.cat(list(descriptions)), kind_N)
        self.condition.pairs.query.learn(query_ND)
        self.condition.pairs.document.learn(document_ND)
        self.condition.texts.learn(document_ND)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> parameter, of all that the generated weights depend on, the shared adapter included."""
        return dict(
            self.generator.named_parameters("generator")
            if isinstance(self.generator, MultiTask)
            else self.named_parameters()
        )


Build: TypeAlias = Callable[
    [Architecture, tuple[Layer, ...], Mapping[str, tuple[Tensor, Tensor]], torch.Generator], nn.Module
]
GENERATORS: dict[GeneratorName, Build] = {
    "multi-task": lambda _, layers, shared, __: MultiTask(SharedAdapter(layers, shared)),
    "instruction-prefix": lambda _, layers, shared, __: MultiTask(SharedAdapter(layers, shared)),
    "core-modulation": lambda sizes, layers, shared, generator: CoreModulation(
        layers, shared, sizes.width, spare=sizes.own_rank, generator=generator
    ),
    "text-to-lora": lambda sizes, layers, shared, generator: TextToLora(
        layers, shared, sizes.width, rank=sizes.own_rank, generator=generator
    ),
    "drag-and-drop": lambda sizes, layers, shared, generator: DragAndDrop(
        layers, shared, sizes.width, rank=sizes.own_rank, generator=generator
    ),
}
"""Name -> how it is built. Each maps [T, C] to weights."""
