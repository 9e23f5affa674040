"""Which model an evaluation recommends, BM25 and another one among them."""

from __future__ import annotations

from acclimate.evaluation.reports import EvaluationReport
from acclimate.evaluation.significance import verdict


def recommended(report: EvaluationReport) -> str:
    """The base or the adapted model, unless BM25 is better than either, or no training can help this model."""
    if "against_bm25" in report and verdict(report["against_bm25"]) == "worse":
        return "bm25"
    return "other" if report["unsuited"] else report["recommend"]
