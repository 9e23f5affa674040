"""The nouns every room shares. TREC's words for retrieval, the field's for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Corpus: TypeAlias = dict[str, str]
"""Document id -> text."""

Queries: TypeAlias = dict[str, str]
"""Query id -> text."""

Qrels: TypeAlias = dict[str, dict[str, int]]
"""Query id -> {document id -> grade}; a grade above 0 means relevant."""

Run: TypeAlias = dict[str, dict[str, float]]
"""Query id -> {document id -> score}, best first (score descending, then id ascending)."""

Role: TypeAlias = Literal["query", "document"]
ROLES: tuple[Role, ...] = ("query", "document")
PAIR_ROLE: Role = "query"
"""Both sentences of a labelled pair are encoded as queries: the side that every adapter adapts."""

Pooling: TypeAlias = Literal["mean", "cls", "last"]
BaseFormat: TypeAlias = Literal["4bit"]
WeightFormat: TypeAlias = BaseFormat | Literal["int8"]
Sides: TypeAlias = Literal["both", "query"]
Split: TypeAlias = Literal["train", "dev", "test"]
Kind: TypeAlias = Literal["retrieval", "pairs"]

Block: TypeAlias = Literal["query-document", "query-query", "document-document", "document-query"]
"""Part of a contrastive loss: what stands in the row (an anchor, or its positive document), and its candidates."""

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """One training row. Texts, not ids: identity of texts is what the losses mask by."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    label: float | None = None
    """Similarity of anchor and positive in [0, 1]; only for labelled pairs (then no negatives)."""
    scores: tuple[float, ...] | None = None
    """A teacher's scores of (positive, *negatives), where the data carries them."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two sentences and how similar they are: `label` as given, `score` mapped to [0, 1]."""

    sentence1: str
    sentence2: str
    label: float
    score: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row of the input that is not used, and why."""

    source: str
    row: int
    reason: str
    text: str
