"""What `report.json` of a run and of a merged model holds, field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from acclimate.evaluation.reports import (
    FoldRow,
    GuardRow,
    IndexEvaluation,
    RerankingReport,
    SplitScores,
    VectorsReport,
)
from acclimate.evaluation.significance import Delta, Verdict
from acclimate.files import REPORT_FILE, read_json
from acclimate.training.reports import EncoderTraining
from acclimate.types import Kind, Sides


class Base(TypedDict):
    """A base model, by name and by weights."""

    id: str
    sha256: str


class TaskSummary(TypedDict, total=False):
    """What is said of one task: all of these fields."""

    source: str
    kind: Kind
    test: SplitScores
    verdict: Verdict
    recommend: str
    unsuited: str
    against_bm25: NotRequired[Delta]
    made_by: dict[str, int]
    """What made the test's queries, where they were made out of documents; empty where users asked them."""
    sides: Sides
    confidence: float
    dataset: dict[str, Any]
    """What `prepare` reported, without its timings."""
    unjudged: NotRequired[dict[str, Any]]
    """How alike base and adapted answer users' queries without judgements; what they find is in `RUN/unjudged`."""
    pairs: NotRequired[dict[str, Any]]
    """What `pairs` reported, without its timings, where `adapt` was given documents."""
    mining: dict[str, Any]
    """What `mine` reported, without its timings; empty where nothing was mined."""
    guard: list[GuardRow]
    domain: dict[str, Any]
    folds: NotRequired[list[FoldRow]]
    """Those of a cross-validation: "test" is then that of all folds together, not of the adapter that is kept."""
    outdated: NotRequired[str]
    """Why the scores are not those of the adapter in use."""
    reranking: NotRequired[RerankingReport]
    index: NotRequired[IndexEvaluation]
    vectors: NotRequired[VectorsReport]


class StageRow(TypedDict):
    """One of the three stages, in `report.json` of the run."""

    stage: str
    dev_before: float | None
    dev_after: float | None
    best_of: int
    """How many scores on dev `dev_after` is the highest of; `dev_before` is one score."""
    kept: bool
    """Whether it is a part of the result."""
    examples: NotRequired[int]
    tokens: NotRequired[int]
    seconds: NotRequired[float]
    weak_pairs: NotRequired[dict[str, int]]
    weights: NotRequired[dict[str, float]]
    """Stage -> its weight in the merge."""


class Proof(TypedDict):
    """What a training on all data rests on: the evaluation of the run that had its settings before."""

    run: str
    """Its folder's name."""
    same_data: bool
    """Whether that run was made of the same files."""
    verdict: Verdict
    recommend: str
    unsuited: str
    against_bm25: NotRequired[Delta]
    made_by: NotRequired[dict[str, int]]
    confidence: float
    test: SplitScores
    kind: Kind


class RunSummary(TaskSummary, total=False):
    """`RUN/report.json`: of a run with one task, also that task's summary; of one with several, `tasks` and `guard`."""

    tasks: dict[str, TaskSummary]
    format: str
    """acclimate: what marks the file as ours, with `version`."""
    version: int
    made: dict[str, dict[str, str]]
    """Part of the run -> the command that made it, and when (`command`, `time`)."""
    command: str
    """The one that made all of it, where it was one."""
    timings: dict[str, float]
    train: EncoderTraining
    config: dict[str, Any]
    versions: dict[str, str]
    folds: list[FoldRow]
    stages: list[StageRow]
    final: Proof
    """The proof that a training on all data rests on, as it has no test of its own."""
    model: Base
    reranking: RerankingReport
    images: dict[str, Any]
    """What `adapt` on images has measured and trained."""


class MergedModel(TypedDict):
    """One of the models of a merge."""

    name: str
    weight: float


class SoupTrial(TypedDict):
    """A model that was tried for a soup."""

    model: str
    alone: float
    soup: float
    """The score with it."""
    kept: bool


class Soup(TypedDict):
    """How a soup was chosen on dev."""

    measure: str
    split: str
    score: float
    kept: list[str]
    tried: list[SoupTrial]
    base: float | None


class Curve(TypedDict):
    """Points between the base and a model, and the one that was chosen."""

    measure: str
    split: str
    guards: dict[str, dict[str, str]]
    bound: float
    points: list[dict[str, Any]]
    chosen: float
    rule: str


class MergeReport(TypedDict, total=False):
    """What `merge` reports; of one adapter folded into its base, the first six fields."""

    base: Base | None
    kind: str
    sides: Sides
    dim: int
    rank: int
    alpha: float
    method: str
    models: list[MergedModel]
    density: float
    update_scale: float
    discarded: dict[str, Any]
    """What a rank could not hold."""
    soup: Soup
    curve: Curve
    timings: dict[str, float]


class Mixture(TypedDict):
    """The mixture of the stages' adapters, in the report of `blend`."""

    measure: str
    base: float
    candidates: list[dict[str, float]]
    """Every weight by its stage's name, and the score as `dev`."""
    chosen: dict[str, float]


class BlendReport(TypedDict):
    """What `blend` reports."""

    merge: Mixture
    timings: NotRequired[dict[str, float]]


def summary_of(run_or_adapter: Path) -> RunSummary:
    """Return the report of a run, or of the run that an adapter lies in; empty where there is none."""
    for folder in (run_or_adapter, run_or_adapter.parent):
        path = folder / REPORT_FILE
        if path.is_file() and {"test", "final"} & (report := read_json(path)).keys():
            return cast(RunSummary, report)
    return {}
