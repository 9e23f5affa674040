"""What `report.json` of an evaluation holds, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypeAlias, TypedDict

from acclimate.evaluation.lexical import LexicalChoice
from acclimate.evaluation.significance import Delta, Verdict
from acclimate.retrieval.index.records import Mode
from acclimate.retrieval.index.reports import FusionChoice
from acclimate.types import Kind, Sides

Measures: TypeAlias = Mapping[str, float | None]


class Counts(TypedDict, total=False):
    """How much was measured: queries and documents, or pairs."""

    queries: int
    queries_without_relevant: int
    documents: int
    pairs: int
    trained_on: int
    """Test queries (pairs) that are left out: the model, or one that it was made from, was trained on them."""


class SplitScores(Counts, total=False):
    """Both models on the test split."""

    base: Measures
    adapted: Measures
    delta: dict[str, Delta]
    bm25: dict[str, float]
    """BM25's measures; retrieval only."""


class GuardRow(Counts):
    """Both models on one of the data sets that guard against forgetting."""

    name: str
    kind: Kind
    base: Measures
    adapted: Measures
    delta: dict[str, Delta]
    relative_loss: float
    """Loss of the main measure, against the base."""
    warn: bool


class EvaluationReport(TypedDict):
    """What `evaluate` reports."""

    kind: Kind
    test: SplitScores
    training_known: bool
    """Whether the adapter, and all that it was made from, say what they were trained on."""
    verdict: Verdict
    recommend: str
    """adapted where that is better, else base."""
    confidence: float
    """Width of the intervals."""
    histograms: dict[str, Any]
    guard: list[GuardRow]
    sides: Sides
    domain: dict[str, Any]
    """The lexicon, term accuracy, relatedness."""
    lexical: NotRequired[LexicalChoice]
    """How BM25 was set up; of retrieval."""
    won: NotRequired[list[dict[str, Any]]]
    """Queries whose ranking got much better, with their first documents."""
    lost: NotRequired[list[dict[str, Any]]]
    timings: NotRequired[dict[str, float]]


class RerankingReport(TypedDict):
    """What the evaluation of a reranker reports."""

    reranker: str
    retriever: str
    """base or adapted."""
    retriever_model: str
    depth: int
    queries: int
    documents: int
    trained_on: int
    """Test queries that are left out: the reranker, or the retriever, was trained on them."""
    training_known: bool
    retrieved: dict[str, float]
    reranked: dict[str, float]
    delta: dict[str, Delta]
    verdict: Verdict
    confidence: float
    timings: NotRequired[dict[str, float]]


class ThroughIndex(TypedDict):
    """What an index finds for the test queries, in every mode."""

    queries: int
    documents: int
    """Documents, or chunks, in the index."""
    modes: dict[Mode, dict[str, float]]
    """dense, lexical, hybrid -> their measures, of whole documents."""
    delta: dict[Mode, dict[str, Delta]]
    """lexical, hybrid -> their difference to dense."""
    confidence: float
    exact_recall: float
    """Share of the exact first ten dense results that the index finds."""


class IndexEvaluation(ThroughIndex):
    """What `evaluate --index` reports."""

    place: str
    backend: str
    model: str
    trained_on: int
    """Test queries that are left out: the model was trained on them."""
    fusion: FusionChoice
    timings: NotRequired[dict[str, float]]
