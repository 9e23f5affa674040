"""Which model an evaluation recommends, BM25 and another one among them."""

from __future__ import annotations

from acclimate.data.made import by_stand_ins
from acclimate.evaluation.reports import EvaluationReport
from acclimate.evaluation.significance import verdict


def recommended(report: EvaluationReport) -> str:
    """The base or the adapted model, unless BM25 is better than either, or no training can help this model.

    Where words of the texts stand in for queries, neither BM25, which finds them by these words, nor an adapted model
    is recommended: on NL2Bash a model trained on such pairs found them better (NDCG@10 +0.15), and what users asked
    for worse (-0.06; docs/pairs.md).
    """
    stand_ins = by_stand_ins(report["made_by"])
    if "against_bm25" in report and not stand_ins and verdict(report["against_bm25"]) == "worse":
        return "bm25"
    if report["unsuited"]:
        return "other"
    return "base" if stand_ins else report["recommend"]
