"""The parts of a run folder, read once. A part whose file is missing is None, and the report says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acclimate.errors import DataError
from acclimate.files import INPUTS_FILE, REPORT_FILE, iter_jsonl, read_json

ARTIFACTS = ("dataset", "negatives", "adapter", "evaluation")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The parts of a run that the report shows, as JSON (docs/architecture.md, "Folder formats")."""

    name: str
    summary: dict[str, Any] | None
    """`report.json`."""
    dataset: dict[str, Any] | None
    """`dataset/dataset.json`."""
    rejected: dict[str, int]
    """Reason -> rows of `dataset/rejected.jsonl`, most frequent first."""
    audit: dict[str, Any] | None
    """`negatives/audit.json`."""
    evaluation: dict[str, Any] | None
    """`evaluation/report.json`."""
    reranking: dict[str, Any] | None
    """`reranking/report.json`."""
    metrics: list[dict[str, Any]] | None
    """The rows of `metrics.jsonl`."""
    config: str | None
    """`config.toml`, as text."""
    inputs: dict[str, dict[str, str]]
    """Artifact -> what it was made from -> sha256."""

    @property
    def test(self) -> dict[str, Any]:
        """The scores on the test split, from the evaluation or else the summary; may be empty."""
        for report in (self.evaluation, self.summary):
            if report and report.get("test"):
                return dict(report["test"])
        return {}

    @property
    def kind(self) -> str:
        """`retrieval` or `pairs`, by the dataset or the evaluation."""
        for report in (self.dataset, self.evaluation):
            if report and report.get("kind"):
                return str(report["kind"])
        return "pairs" if "spearman" in self.test.get("base", {}) else "retrieval"


def read_run(run: Path) -> RunFolder:
    """Read those parts of a run that exist.

    Raises:
        DataError: there is no such folder, or nothing of a run in it.
        StorageError: a part is there but damaged.
    """
    if not run.is_dir():
        raise DataError(f"{run}: no such run folder", fix="Make one with: acclimate adapt DATA --out RUN")
    folder = RunFolder(
        name=run.resolve().name,
        summary=_json(run / REPORT_FILE),
        dataset=_json(run / "dataset" / "dataset.json"),
        rejected=_reasons(run / "dataset" / "rejected.jsonl"),
        audit=_json(run / "negatives" / "audit.json"),
        evaluation=_json(run / "evaluation" / REPORT_FILE),
        reranking=_json(run / "reranking" / REPORT_FILE),
        metrics=_rows(run / "metrics.jsonl"),
        config=_text(run / "config.toml"),
        inputs={name: inputs for name in ARTIFACTS if (inputs := _json(run / name / INPUTS_FILE))},
    )
    if all(part is None for part in (folder.summary, folder.dataset, folder.audit, folder.evaluation, folder.metrics)):
        raise DataError(f"{run} holds nothing of a run", fix="Make one with: acclimate adapt DATA --out RUN")
    return folder


def read_task(run: Path, whole: RunFolder, name: str) -> RunFolder:
    """Read one of several tasks as if it were the only one: its part of the summary and of the metrics."""
    summary = whole.summary or {}
    train = {key: value for key, value in summary["train"].items() if key != "tasks"}
    common = {key: value for key, value in summary.items() if key not in ("tasks", "timings", "guard")}
    of_task = {**common, **summary["tasks"][name], "train": {**train, **summary["train"]["tasks"][name]}}
    rows = []
    for row in whole.metrics or []:
        dev = {key.removeprefix(f"{name}/"): value for key, value in row.get("dev", {}).items() if f"{name}/" in key}
        if dev or row.get("task") == name:
            rows.append({**row, "dev": dev} if dev else row)
    return replace(read_run(run / "tasks" / name), summary=of_task, metrics=rows, config=whole.config)


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
