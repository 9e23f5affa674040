"""The evaluations of all folds of a cross-validation, taken together: of the way of training, not of one adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from acclimate.configs import EvaluateConfig
from acclimate.data.dataset import Dataset
from acclimate.evaluation.clusters import pair_clusters, query_clusters
from acclimate.evaluation.compare import MAIN_MEASURE, SHOWN_QUERIES
from acclimate.evaluation.measures import RETRIEVAL_MEASURES
from acclimate.evaluation.recommend import recommended
from acclimate.evaluation.reports import EvaluationReport, FoldRow, Measures, SplitScores
from acclimate.evaluation.significance import Delta, compare_correlations, compare_means, verdict
from acclimate.types import LabelledPair, Qrels


@dataclass(frozen=True, slots=True)
class EvaluatedFold:
    """What one fold's adapter scored on its test."""

    data: Dataset
    report: EvaluationReport
    rows: Sequence[Mapping[str, Any]]
    """Those of `per_query.jsonl`: every test query's measures, or every test pair's cosines."""


def pool(folds: Sequence[EvaluatedFold], config: EvaluateConfig, seed: int) -> EvaluationReport:
    """Take the tests of all folds together: every query is in one of them, with an adapter that has not seen it.

    A measure is the mean over all tested queries; of labelled pairs the folds' correlations, averaged by their number
    of pairs. Clusters are joined over all folds, and their signs flipped as in one test. The interval is wider, because
    the folds' trainings overlap (`significance.fold_inflation`).

    Args:
        folds: in their order.
        config: of the sign flips.
        seed: fixes them.
    """
    first = folds[0].report
    sizes = [len(fold.rows) for fold in folds]
    delta = _pair_deltas(folds, config, seed) if first["kind"] == "pairs" else _ranking_deltas(folds, config, seed)
    main = MAIN_MEASURE[first["kind"]]
    found = verdict(delta[main])
    test = {
        **_counts(folds),
        **{side: _mean([fold.report["test"][side] for fold in folds], sizes) for side in ("base", "adapted")},
        "delta": delta,
        "trained_on": sum(fold.report["test"].get("trained_on", 0) for fold in folds),
    }
    if "bm25" in first["test"]:
        test["bm25"] = _mean([fold.report["test"]["bm25"] for fold in folds], sizes)
    pooled: EvaluationReport = {
        **first,
        "test": cast(SplitScores, test),
        "training_known": all(fold.report["training_known"] for fold in folds),
        "verdict": found,
        "recommend": "adapted" if found == "better" else "base",
        "confidence": config.confidence,
        "histograms": {},  # the cosines of different adapters are of different scales
        "folds": [_row(number, fold, main) for number, fold in enumerate(folds, start=1)],
    }
    pooled["unsuited"] = next((fold.report["unsuited"] for fold in folds if fold.report["unsuited"]), "")
    if "against_bm25" in first:
        pooled["against_bm25"] = _ranking_deltas(folds, config, seed, "bm25", pooled["recommend"])[main]
    pooled["recommend"] = recommended(pooled)
    if any(fold.report.get("lexical", {}).get("variant") != first.get("lexical", {}).get("variant") for fold in folds):
        pooled.pop("lexical", None)  # each fold has chosen its own
    if "won" in first and "lost" in first:
        pooled["won"], pooled["lost"] = _most(folds, "won", -1), _most(folds, "lost", 1)
    return pooled


def pooled_rows(folds: Sequence[EvaluatedFold]) -> list[dict[str, Any]]:
    """Every tested query's (pair's) scores, with the number of its fold."""
    return [{"fold": number, **row} for number, fold in enumerate(folds, start=1) for row in fold.rows]


def _counts(folds: Sequence[EvaluatedFold]) -> dict[str, int]:
    tests: list[Mapping[str, Any]] = [fold.report["test"] for fold in folds]
    summed = {
        name: sum(test[name] for test in tests)
        for name in ("queries", "queries_without_relevant", "pairs")
        if name in tests[0]
    }
    return {**summed, **({"documents": max(test["documents"] for test in tests)} if "documents" in tests[0] else {})}


def _mean(measures: Sequence[Measures], sizes: Sequence[int]) -> dict[str, float | None]:
    """Every measure's mean over the folds, by size; None where a fold has none."""
    means: dict[str, float | None] = {}
    for name in measures[0]:
        values = [measure.get(name) for measure in measures]
        known = [value for value in values if value is not None]
        means[name] = float(np.average(known, weights=sizes)) if len(known) == len(values) else None
    return means


def _row(number: int, fold: EvaluatedFold, main: str) -> FoldRow:
    test = fold.report["test"]
    base, adapted = test["base"][main] or 0.0, test["adapted"][main] or 0.0
    near = int(fold.data.info.get("counts", {}).get("near_duplicates", 0))
    return {"fold": number, "tested": len(fold.rows), "base": base, "adapted": adapted, "near_duplicates": near}


def _most(folds: Sequence[EvaluatedFold], which: str, sign: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [row for fold in folds for row in cast(Mapping[str, Any], fold.report).get(which, ())]
    return sorted(rows, key=lambda row: (sign * row["delta"], row["query"]))[:SHOWN_QUERIES]


def _ranking_deltas(
    folds: Sequence[EvaluatedFold], config: EvaluateConfig, seed: int, before: str = "base", after: str = "adapted"
) -> dict[str, Delta]:
    rows = [row for fold in folds for row in fold.rows]
    clusters = _query_clusters(folds)
    return {
        name: compare_means(
            np.array([row[before][name] for row in rows]),
            np.array([row[after][name] for row in rows]),
            flips=config.sign_flips,
            confidence=config.confidence,
            seed=seed,
            clusters=clusters,
            folds=len(folds),
        )
        for name in RETRIEVAL_MEASURES
    }


def _query_clusters(folds: Sequence[EvaluatedFold]) -> list[int]:
    """The cluster of every tested query of all folds, by texts: ids count within a fold only."""
    qrels: Qrels = {}
    queries: dict[str, str] = {}
    corpus: dict[str, str] = {}
    for number, fold in enumerate(folds):
        for row in fold.rows:
            query = row["query_id"]
            grades = fold.data.qrels["test"][query]
            qrels[f"{number} {query}"] = {f"{number} {document}": grade for document, grade in grades.items()}
            queries[f"{number} {query}"] = fold.data.queries[query]
            corpus |= {f"{number} {key}": fold.data.corpus[key] for key in grades if key in fold.data.corpus}
    return query_clusters(qrels, queries, corpus)


def _pair_deltas(folds: Sequence[EvaluatedFold], config: EvaluateConfig, seed: int) -> dict[str, Delta]:
    rows = [row for fold in folds for row in fold.rows]
    base, adapted, label = (np.array([row[name] for row in rows]) for name in ("base", "adapted", "label"))
    pairs = [LabelledPair(row["sentence1"], row["sentence2"], row["label"], 0.0) for row in rows]
    clusters, numbers = pair_clusters(pairs), np.repeat(np.arange(len(folds)), [len(fold.rows) for fold in folds])
    return {
        name: compare_correlations(
            base,
            adapted,
            label,
            by_rank=by_rank,
            flips=config.sign_flips,
            confidence=config.confidence,
            seed=seed,
            clusters=clusters,
            folds=numbers,
        )
        for name, by_rank in (("spearman", True), ("pearson", False))
    }
