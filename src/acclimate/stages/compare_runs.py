"""`compare`: finished runs on the test queries, or labelled pairs, that all of them share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from acclimate.configs import EvaluateConfig, RunConfig, load_config, with_overrides
from acclimate.data.dataset import Dataset, load_dataset, map_label
from acclimate.errors import DataError, StorageError, UsageError
from acclimate.evaluation.clusters import pair_clusters, query_clusters
from acclimate.evaluation.compare import MAIN_MEASURE
from acclimate.evaluation.measures import RETRIEVAL_MEASURES, pair_measures
from acclimate.evaluation.reports import PER_QUERY_FILE
from acclimate.evaluation.significance import Delta, compare_correlations, compare_means, verdict
from acclimate.files import hash_text, iter_jsonl
from acclimate.runs.run_folder import RunFolder, is_run
from acclimate.runs.tasks import one_task
from acclimate.types import Kind, LabelledPair, Qrels

CORRELATIONS = {"spearman": True, "pearson": False}
"""Measure of labelled pairs -> whether by rank."""

Key: TypeAlias = str
"""What makes a test query, or a labelled pair, the same in two runs."""


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """One run's scores on its own test split."""

    name: str
    kind: Kind
    rows: Mapping[Key, Mapping[str, Any]]
    """A query's measures; a labelled pair's "cosine", "label" and "score", the label within 0 to 1."""
    corpus: str
    """Hash of the documents that were ranked."""


def compare_runs(runs: Sequence[Path], config: RunConfig) -> dict[str, Any]:
    """Compare the adapted models of finished runs with that of the first, on what all of them were tested on.

    A query is the same where its text and its judgements (texts and grades of its documents) are; ids do not count.
    A labelled pair is the same where both sentences and the label are.

    Args:
        runs: folders of runs that were evaluated.
        config: `task`, of runs with several; `seed`, `evaluate.sign_flips` and `evaluate.confidence`.

    Returns:
        {"kind", "measure" (the one that decides), "shared" (how many), "confidence", "warnings", "runs": [{"run",
        "tested" (how many alone), "measures", and but for the first "delta" by measure and "verdict"}]}.

    Raises:
        UsageError: fewer than two runs, or of two kinds of data.
        StorageError: one of them was not evaluated.
        DataError: they share no test query.
    """
    if len(runs) < 2:
        raise UsageError(f"compare of {len(runs)} run{'' if len(runs) == 1 else 's'}", possible="two runs or more")
    found = [_read(run, config) for run in runs]
    first = found[0]
    if other := next((run for run in found if run.kind != first.kind), None):
        raise UsageError(f"{first.name} is on {_data(first.kind)}, {other.name} on {_data(other.kind)}")
    shared = [key for key in first.rows if all(key in run.rows for run in found)]
    if not shared:
        raise DataError(
            f"no test {_noun(first.kind)} is the same in {', '.join(run.name for run in found)}",
            fix="Compare runs on the same data, prepared with the same seed and test fraction.",
        )
    measured = [_measures(run, shared) for run in found]
    measure = MAIN_MEASURE[first.kind]
    rows: list[dict[str, Any]] = []
    for run, measures in zip(found, measured, strict=True):
        row = {"run": run.name, "tested": len(run.rows), "measures": measures}
        if rows:
            delta = _deltas(first, run, shared, config.evaluate, config.seed)
            row |= {"delta": delta, "verdict": verdict(delta[measure])}
        rows.append(row)
    return {
        "kind": first.kind,
        "measure": measure,
        "shared": len(shared),
        "confidence": config.evaluate.confidence,
        "warnings": _warnings(found),
        "runs": rows,
    }


def _read(run: Path, config: RunConfig) -> _Evaluated:
    if not is_run(run):
        raise StorageError(f"{run} holds no dataset", fix=f"Make it with: acclimate adapt DATA --out {run}")
    own = load_config(RunFolder(run).config) if RunFolder(run).config.is_file() else RunConfig()
    task = one_task(run, with_overrides(own, {"task": config.task or own.task}))
    path = task.evaluation / PER_QUERY_FILE
    if not path.is_file():
        raise StorageError(f"{task.evaluation} holds no scores", fix=f"Make them with: acclimate evaluate {run}")
    data = load_dataset(task.dataset)
    rows = [line.value for line in iter_jsonl(path) if isinstance(line.value, dict)]
    if any("fold" in row for row in rows):
        raise UsageError(f"{run} was proven by folds: it has no test split to share", possible="runs with a test split")
    try:
        keyed = _pairs(rows, data) if data.kind == "pairs" else _queries(rows, data)
    except KeyError as error:
        raise StorageError(
            f"{path} is not about {task.dataset}: {error} is not there", fix=f"Run: acclimate evaluate {run}"
        ) from None
    corpus = hash_text(*sorted(data.corpus.values()))
    return _Evaluated(str(run), data.kind, keyed, corpus)


def _queries(rows: Sequence[Mapping[str, Any]], data: Dataset) -> dict[Key, Mapping[str, Any]]:
    qrels = data.qrels.get("test", {})
    return {
        _query_key(row["query_id"], data, qrels[row["query_id"]]): {
            name: row["adapted"][name] for name in RETRIEVAL_MEASURES
        }
        for row in rows
    }


def _query_key(query: str, data: Dataset, grades: Mapping[str, int]) -> Key:
    judged = sorted((data.corpus[document], grade) for document, grade in grades.items() if document in data.corpus)
    return json.dumps([data.queries[query], judged], ensure_ascii=False)


def _pairs(rows: Sequence[Mapping[str, Any]], data: Dataset) -> dict[Key, Mapping[str, Any]]:
    label_range = data.info["label_range"]
    return {
        json.dumps([row["sentence1"], row["sentence2"], row["label"]], ensure_ascii=False): {
            "cosine": row["adapted"],
            "label": row["label"],
            "score": map_label(row["label"], label_range),
        }
        for row in rows
    }


def _measures(run: _Evaluated, shared: Sequence[Key]) -> dict[str, float | None]:
    """The measures over what is shared."""
    if run.kind == "retrieval":
        return {name: float(_column(run, shared, name).mean()) for name in RETRIEVAL_MEASURES}
    pairs = [LabelledPair("", "", run.rows[key]["label"], run.rows[key]["score"]) for key in shared]
    return pair_measures(_column(run, shared, "cosine"), pairs)


def _deltas(
    first: _Evaluated, other: _Evaluated, shared: Sequence[Key], settings: EvaluateConfig, seed: int
) -> dict[str, Delta]:
    drawn: dict[str, Any] = {"flips": settings.sign_flips, "confidence": settings.confidence, "seed": seed}
    drawn["clusters"] = _clusters(first.kind, shared)
    if first.kind == "retrieval":
        return {
            name: compare_means(_column(first, shared, name), _column(other, shared, name), **drawn)
            for name in RETRIEVAL_MEASURES
        }
    columns = [_column(first, shared, "cosine"), _column(other, shared, "cosine"), _column(first, shared, "label")]
    return {name: compare_correlations(*columns, by_rank=by_rank, **drawn) for name, by_rank in CORRELATIONS.items()}


def _clusters(kind: Kind, shared: Sequence[Key]) -> list[int]:
    """Cluster of every query or pair that is shared, by the texts in its key."""
    if kind == "pairs":
        return pair_clusters([LabelledPair(first, second, 0.0, 0.0) for first, second, _ in map(json.loads, shared)])
    parts = {key: json.loads(key) for key in shared}
    qrels: Qrels = {key: dict(judged) for key, (_, judged) in parts.items()}
    texts = {text: text for grades in qrels.values() for text in grades}
    return query_clusters(qrels, {key: query for key, (query, _) in parts.items()}, texts)


def _column(run: _Evaluated, shared: Sequence[Key], name: str) -> Any:
    return np.array([run.rows[key][name] for key in shared], np.float64)


def _warnings(found: Sequence[_Evaluated]) -> list[str]:
    others = [run.name for run in found[1:] if run.corpus != found[0].corpus]
    if not others:
        return []
    return [
        f"{', '.join(others)} ranked other documents than {found[0].name}: more documents, or harder ones, lower every "
        "score, so a difference is not the model's alone"
    ]


def _noun(kind: Kind) -> str:
    return "pair" if kind == "pairs" else "query"


def _data(kind: Kind) -> str:
    return "labelled pairs" if kind == "pairs" else "retrieval data"
