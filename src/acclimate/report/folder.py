"""The parts of a run folder, read once. A part whose file is missing is None, and the report says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from acclimate.data.dataset import DATASET_FILE, REJECTED_FILE
from acclimate.errors import DataError
from acclimate.evaluation.reports import (
    EvaluationReport,
    IndexEvaluation,
    RerankingReport,
    SplitScores,
    VectorsReport,
)
from acclimate.files import INPUTS_FILE, REPORT_FILE, iter_jsonl, read_json
from acclimate.report.summary import RunSummary
from acclimate.runs.refreshes import Decision, decisions
from acclimate.runs.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class RunParts:
    """The parts of a run that the report shows, as JSON (docs/architecture.md, "Folder formats")."""

    name: str
    summary: RunSummary | None
    """`report.json`."""
    dataset: dict[str, Any] | None
    """`dataset/dataset.json`."""
    rejected: dict[str, int]
    """Reason -> rows of `dataset/rejected.jsonl`, most frequent first."""
    audit: dict[str, Any] | None
    """`negatives/audit.json`."""
    evaluation: EvaluationReport | None
    """`evaluation/report.json`."""
    reranking: RerankingReport | None
    """`reranking/report.json`."""
    index: IndexEvaluation | None
    """`index_evaluation/report.json`."""
    decisions: list[Decision]
    """What was decided about what was learned from feedback, the oldest first."""
    vectors: VectorsReport | None
    """`vectors/report.json`."""
    metrics: list[dict[str, Any]] | None
    """The rows of `metrics.jsonl`."""
    config: str | None
    """`config.toml`, as text."""
    inputs: dict[str, dict[str, str]]
    """Artifact -> what it was made from -> sha256."""

    @property
    def test(self) -> SplitScores:
        """The scores on the test split, from the evaluation or else the summary; may be empty."""
        for report in (self.evaluation, self.summary):
            if report and report.get("test"):
                return report["test"]
        return {}

    @property
    def kind(self) -> str:
        """`retrieval` or `pairs`, by the dataset or the evaluation."""
        for report in (self.dataset, self.evaluation):
            if report and report.get("kind"):
                return str(report["kind"])
        return "pairs" if "spearman" in self.test.get("base", {}) else "retrieval"


def read_run(run: Path) -> RunParts:
    """Read those parts of a run that exist.

    Raises:
        DataError: there is no such folder, or nothing of a run in it.
        StorageError: a part is there but damaged.
    """
    if not run.is_dir():
        raise DataError(f"{run}: no such run folder", fix="Make one with: acclimate adapt DATA --out RUN")
    folder = RunFolder(run)
    artifacts = (folder.dataset, folder.negatives, folder.adapter, folder.evaluation)
    parts = RunParts(
        name=run.resolve().name,
        summary=cast(RunSummary | None, _json(folder.report)),
        dataset=_json(folder.dataset / DATASET_FILE),
        rejected=_reasons(folder.dataset / REJECTED_FILE),
        audit=_json(folder.audit),
        evaluation=cast(EvaluationReport | None, _json(folder.evaluation / REPORT_FILE)),
        reranking=cast(RerankingReport | None, _json(folder.reranking / REPORT_FILE)),
        index=cast(IndexEvaluation | None, _json(folder.index_evaluation / REPORT_FILE)),
        decisions=decisions(folder),
        vectors=cast(VectorsReport | None, _json(folder.vectors / REPORT_FILE)),
        metrics=_rows(folder.metrics),
        config=_text(folder.config),
        inputs={artifact.name: inputs for artifact in artifacts if (inputs := _json(artifact / INPUTS_FILE))},
    )
    if all(part is None for part in (parts.summary, parts.dataset, parts.audit, parts.evaluation, parts.metrics)):
        raise DataError(f"{run} holds nothing of a run", fix="Make one with: acclimate adapt DATA --out RUN")
    return parts


def read_task(run: Path, whole: RunParts, name: str) -> RunParts:
    """Read one of several tasks as if it were the only one: its part of the summary and of the metrics."""
    summary = whole.summary or {}
    train = {key: value for key, value in summary["train"].items() if key != "tasks"}
    common = {key: value for key, value in summary.items() if key not in ("tasks", "timings", "guard")}
    of_task: Any = {**common, **summary["tasks"][name], "train": {**train, **summary["train"]["tasks"][name]}}
    rows = []
    for row in whole.metrics or []:
        dev = {key.removeprefix(f"{name}/"): value for key, value in row.get("dev", {}).items() if f"{name}/" in key}
        if dev or row.get("task") == name:
            rows.append({**row, "dev": dev} if dev else row)
    return replace(read_run(RunFolder(run).task(name).path), summary=of_task, metrics=rows, config=whole.config)


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def _rows(path: Path) -> list[dict[str, Any]] | None:
    """The rows of a JSONL file; an incomplete last line (of a killed run) is left out."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    return [line.value for line in iter_jsonl(path) if line.value is not None]


def _reasons(path: Path) -> dict[str, int]:
    if not path.exists() or path.stat().st_size == 0:
        return {}
    counted = Counter(str(line.value.get("reason", "")) for line in iter_jsonl(path) if line.value is not None)
    return dict(counted.most_common())
