"""What is chosen among where a user has pairs: the base, the multi-task adapter, what is generated, the closed form.

Shapes: P pairs, D vector size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from acclimate.models.hypernetwork.condition import ConditionVectors, batch_of
from acclimate.models.hypernetwork.layers import Weights, as_weights
from acclimate.models.hypernetwork.reference_points import map_from_pairs
from acclimate.models.hypernetwork.saving import TrainedNetwork

MULTI_TASK, GENERATED, CLOSED_FORM = "multi-task", "generated", "closed-form map"


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates beside the base, of one hypernetwork."""

    trained: TrainedNetwork

    @property
    def names(self) -> list[str]:
        """Which there are."""
        return [*([MULTI_TASK] if self.trained.shared else []), GENERATED, CLOSED_FORM]

    def weights(self, name: str, vectors: ConditionVectors) -> Weights | None:
        """Layer -> (A [1, r, I], B [1, O, r]) of a candidate; None where it has no pair to be made of."""
        if name == MULTI_TASK:
            return as_weights(self.trained.shared)
        if name == CLOSED_FORM:
            if vectors.query_PD is None or vectors.document_PD is None:
                return None
            return map_from_pairs(torch.from_numpy(vectors.query_PD), torch.from_numpy(vectors.document_PD))
        with torch.inference_mode():
            return self.trained.network(batch_of([vectors], self.trained.use.dim))  # type: ignore[no-any-return]


def without(vectors: ConditionVectors, pairs: Sequence[tuple[str, str]], numbers: Collection[int]) -> ConditionVectors:
    """Take some pairs out of a condition, and others that share a text with one of them.

    Args:
        vectors: of the condition.
        pairs: its (query, document), row by row those of the vectors.
        numbers: which ones.
    """
    queries, documents = ({pairs[number][side] for number in numbers} for side in (0, 1))
    kept = [place for place, (q, d) in enumerate(pairs) if q not in queries and d not in documents]
    rows = {
        name: value[kept] if kept and value is not None else None
        for name, value in (("query_PD", vectors.query_PD), ("document_PD", vectors.document_PD))
    }
    return replace(vectors, **rows)
