"""What a user says or shows of a task, and its vectors by the base.

Shapes: T tasks, P example pairs and S sample texts of the task that has most, D vector size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.errors import UsageError
from acclimate.models.encoder import Encoder

Part: TypeAlias = Literal["description", "pairs", "texts"]
PARTS: tuple[Part, ...] = ("description", "pairs", "texts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A description, example pairs, sample texts, or any of them together.

    Raises:
        UsageError: nothing is given, or a text is empty.
    """

    description: str | None = None
    """What shall count as relevant, in a sentence."""
    pairs: tuple[tuple[str, str], ...] = ()
    """(query, relevant document); their order does not matter."""
    texts: tuple[str, ...] = ()
    """Texts of the domain; their order does not matter."""

    def __post_init__(self) -> None:
        if self.description is None and not self.pairs and not self.texts:
            raise UsageError(
                "nothing says what the adapter is for",
                possible="a description, example pairs, sample texts, or any of them together",
            )
        if self.description is not None and not self.description.strip():
            raise UsageError("the description is empty", fix="Say in a sentence what shall count as relevant.")
        for number, pair in enumerate(self.pairs, 1):
            if not all(text.strip() for text in pair):
                raise UsageError(f"example pair {number} has an empty text", fix="Leave it out.")
        if not all(text.strip() for text in self.texts):
            raise UsageError("a sample text is empty", fix="Leave it out.")


@dataclass(frozen=True, slots=True)
class ConditionBatch:
    """The base's vectors of several tasks' conditions; where a mask is False a row is 0 and means nothing."""

    description_TD: Tensor
    described_T: Tensor
    """Whether a task has a description."""
    query_TPD: Tensor
    document_TPD: Tensor
    pair_TP: Tensor
    """Which rows of the two are example pairs."""
    text_TSD: Tensor
    text_TS: Tensor
    """Which rows are sample texts."""

    def __len__(self) -> int:
        return len(self.description_TD)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> ConditionBatch:
        """Return the batch on a device, its vectors in a dtype."""
        moved = {}
        for field in fields(self):
            tensor: Tensor = getattr(self, field.name)
            moved[field.name] = tensor.to(device) if tensor.dtype == torch.bool else tensor.to(device, dtype)
        return ConditionBatch(**moved)

    def only(self, *parts: Part) -> ConditionBatch:
        """Return the batch without all other parts."""
        kept = self
        if "description" not in parts:
            kept = replace(kept, described_T=torch.zeros_like(self.described_T))
        if "pairs" not in parts:
            kept = replace(kept, pair_TP=torch.zeros_like(self.pair_TP))
        if "texts" not in parts:
            kept = replace(kept, text_TS=torch.zeros_like(self.text_TS))
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionVectors:
    """The base's vectors of one task's condition."""

    description_D: NDArray[np.float32] | None = None
    query_PD: NDArray[np.float32] | None = None
    document_PD: NDArray[np.float32] | None = None
    """Row by row the documents of `query_PD`."""
    text_SD: NDArray[np.float32] | None = None


def encode_condition(encoder: Encoder, condition: Condition) -> ConditionVectors:
    """Encode a condition by the base: a description as a query is, sample texts as documents are."""
    described, queries = condition.description is not None, [query for query, _ in condition.pairs]
    ask = [*([condition.description] if condition.description is not None else []), *queries]
    query_ND = encoder.encode(ask, "query")
    document_ND = encoder.encode([*(document for _, document in condition.pairs), *condition.texts], "document")
    pairs = len(queries)
    return ConditionVectors(
        description_D=query_ND[0] if described else None,
        query_PD=query_ND[described:] if pairs else None,
        document_PD=document_ND[:pairs] if pairs else None,
        text_SD=document_ND[pairs:] if condition.texts else None,
    )


def batch_of(conditions: Sequence[ConditionVectors], dim: int) -> ConditionBatch:
    """Put several tasks' conditions into one batch, padded.

    Args:
        conditions: of each task.
        dim: vector size.
    """
    described = [condition.description_D is not None for condition in conditions]
    blank = np.zeros(dim, np.float32)
    description = [blank if condition.description_D is None else condition.description_D for condition in conditions]
    query_TPD, pair_TP = _padded([condition.query_PD for condition in conditions], dim)
    document_TPD, _ = _padded([condition.document_PD for condition in conditions], dim)
    text_TSD, text_TS = _padded([condition.text_SD for condition in conditions], dim)
    description_TD = torch.from_numpy(np.stack(description))
    return ConditionBatch(description_TD, torch.tensor(described), query_TPD, document_TPD, pair_TP, text_TSD, text_TS)


def _padded(rows: Sequence[NDArray[np.float32] | None], dim: int) -> tuple[Tensor, Tensor]:
    """[T, longest, D] with zeros behind each task's rows, and True [T, longest] where there are rows."""
    counts = [0 if row is None else len(row) for row in rows]
    padded = torch.zeros(len(rows), max(counts, default=0), dim)
    present = torch.zeros(padded.shape[:2], dtype=torch.bool)
    for task, row in enumerate(rows):
        if row is not None:
            padded[task, : len(row)] = torch.from_numpy(np.ascontiguousarray(row))
            present[task, : len(row)] = True
    return padded, present
