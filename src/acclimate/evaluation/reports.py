"""What `report.json` of an evaluation holds, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypeAlias, TypedDict

from acclimate.evaluation.lexical import LexicalChoice
from acclimate.evaluation.significance import Delta, Verdict
from acclimate.retrieval.index.records import Mode
from acclimate.retrieval.index.reports import FusionChoice
from acclimate.types import Kind, Sides

PER_QUERY_FILE = "per_query.jsonl"
"""Beside an evaluation's `report.json`: every test query's measures by both models, or every test pair's cosines."""

Measures: TypeAlias = Mapping[str, float | None]


class Counts(TypedDict, total=False):
    """How much was measured: queries and documents, or pairs."""

    queries: int
    queries_without_relevant: int
    documents: int
    own_documents: int
    """Queries that are documents too, under the same id, and do not find themselves; absent where there are none."""
    pairs: int
    trained_on: int
    """Test queries (pairs) that are left out: the model, or one that it was made from, was trained on them."""


class SplitScores(Counts, total=False):
    """Both models on the test split."""

    base: Measures
    adapted: Measures
    delta: dict[str, Delta]
    bm25: Measures
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


class FoldRow(TypedDict):
    """One fold of a cross-validation."""

    fold: int
    tested: int
    """Test queries (pairs)."""
    base: float
    """The main measure."""
    adapted: float
    """That of the adapter that was trained on the other folds."""
    near_duplicates: int
    """Dev and test queries (pairs) of the fold that are nearly one of its training texts."""


class EvaluationReport(TypedDict):
    """What `evaluate` reports."""

    kind: Kind
    test: SplitScores
    training_known: bool
    """Whether the adapter, and all that it was made from, say what they were trained on."""
    made_by: dict[str, int]
    """What made the test's queries -> how many, where they were made out of documents; empty where users asked them."""
    adapter_version: NotRequired[str]
    """Which version of the adapter was measured."""
    verdict: Verdict
    recommend: str
    """See `recommend.recommended`: adapted, base, bm25, or other where the model cannot read the texts."""
    reading: dict[str, Any]
    """How the model reads the test's texts, by side (`models.reading`)."""
    unsuited: str
    """Why the model is not suited to these texts; empty where it is."""
    against_bm25: NotRequired[Delta]
    """The better model's main measure - BM25's; of retrieval."""
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
    folds: NotRequired[list[FoldRow]]
    """Those of a cross-validation: "test" is then that of all folds together, each with an adapter of its own, while
    "guard" and "domain" are of the first fold's adapter."""
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
    adapter_version: NotRequired[str]
    """Which version of the adapter searched; absent where the base did."""
    outdated: NotRequired[str]
    """In the run's summary: why the scores are not those of the adapter in use."""
    timings: NotRequired[dict[str, float]]


class RoutedSet(TypedDict):
    """Test queries of one set, over a corpus that several sets share."""

    set: str
    kind: str
    """own, outside or spanning (`evaluation.pooled_sets.SetKind`)."""
    expert: str | None
    """Who should answer; None: the base, or several."""
    queries: int
    scores: dict[str, float]
    """Base, expert, router, mixture or oracle -> NDCG@10."""
    from_base: dict[str, Delta]
    """Differences to the base, with intervals."""
    from_auto: dict[str, Delta]
    """Differences to the router by centroids."""
    accuracy: NotRequired[dict[str, float]]
    """Router -> share of the queries that it sends where they belong; to the base, where no expert was trained."""


class RoutingReport(TypedDict):
    """Routing among experts, on one pooled corpus."""

    measure: str
    documents: int
    experts: list[str]
    radii: dict[str, float]
    confidence: float
    sets: list[RoutedSet]
    mix_on_spanning: str | None
    """The verdict on mixing against choosing one, where a query spans two experts' domains; None: none was asked."""


FormRow = TypedDict(
    "FormRow",
    {
        "form": str,
        "dim": int,
        "bytes": int,
        "searched_bytes": int,
        "recall@10": float,
        "ndcg@10": float,
        "delta": Delta,
        "ms": float,
    },
)
"""Stored vectors in one form (`retrieval.vector_forms`): all bytes of a vector and those that every search reads; the
share of float32's first ten that it finds; NDCG@10, and its difference to float32; milliseconds of a search on one
thread."""


class VectorsReport(TypedDict):
    """What `vectors` reports."""

    model: str
    queries: int
    documents: int
    confidence: float
    oversampling: int
    trained_on: int
    """Test queries that are left out: the model was trained on them."""
    rows: list[FormRow]
    """The first is float32 in all dimensions."""
    adapter_version: NotRequired[str]
    """Which version of the adapter gave the vectors; absent where the base did."""
    outdated: NotRequired[str]
    """In the run's summary: why the numbers are not those of the adapter in use."""
    timings: NotRequired[dict[str, float]]
