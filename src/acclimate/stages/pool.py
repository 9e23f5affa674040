"""`pool`: the evaluations of the folds of a cross-validation -> the evaluation of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from acclimate.configs import RunConfig, effective
from acclimate.evaluation.compare import METHOD
from acclimate.evaluation.pooled import EvaluatedFold, pool, pooled_rows
from acclimate.evaluation.reports import PER_QUERY_FILE, EvaluationReport
from acclimate.files import REPORT_FILE, hash_folder, iter_jsonl, read_json, write_jsonl
from acclimate.runs.opening import open_dataset
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step


def pool_folds(folds: Sequence[RunFolder], out: Path, config: RunConfig) -> EvaluationReport:
    """Take the evaluations of all folds together; every query was tested once, by an adapter that had not seen it.

    Args:
        folds: each with `dataset` and `evaluation`, in their order.
        out: `RUN/evaluation`; gets report.json and per_query.jsonl, each row with the number of its fold.
        config: shared fields and `evaluate`.

    Returns:
        what report.json holds.

    Raises:
        StorageError: a fold is not there.
    """
    settings = effective(config, "evaluate")
    inputs = {"method": METHOD}
    for number, fold in enumerate(folds, start=1):
        inputs |= {f"fold {number} {part.name}": hash_folder(part) for part in (fold.dataset, fold.evaluation)}

    def make() -> Work[EvaluationReport]:
        evaluated = [_read(fold) for fold in folds]
        report = pool(evaluated, config.evaluate, config.seed)

        def write(folder: Path) -> EvaluationReport:
            write_jsonl(folder / PER_QUERY_FILE, pooled_rows(evaluated))
            return report

        return Work(write)

    return step("pool", out, settings, inputs, make, seconds="evaluate_s", alone=True)


def _read(fold: RunFolder) -> EvaluatedFold:
    report = cast(EvaluationReport, read_json(fold.evaluation / REPORT_FILE))
    rows = [line.value for line in iter_jsonl(fold.evaluation / PER_QUERY_FILE) if isinstance(line.value, dict)]
    return EvaluatedFold(open_dataset(fold.dataset), report, rows)
