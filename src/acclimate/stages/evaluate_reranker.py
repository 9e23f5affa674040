"""`evaluate-reranker`: the run's retrieval alone, and with its first documents put in order by a reranker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acclimate import processes
from acclimate.configs import RunConfig, effective
from acclimate.evaluation.compare import judged_queries
from acclimate.evaluation.measures import evaluate_run
from acclimate.evaluation.significance import Delta, paired_bootstrap, verdict
from acclimate.files import REPORT_FILE, artifact, hash_folder, is_current, read_json, write_json, write_jsonl
from acclimate.retrieval.rank import rank
from acclimate.retrieval.rerank import rerank
from acclimate.retrieval.trec import write_trec
from acclimate.runs.resolve import load_reranker, reranker_source
from acclimate.runs.run_folder import cache_folder, load_retriever, open_retrieval_dataset, retriever_hash
from acclimate.runs.tasks import one_task
from acclimate.types import Run

RUN_RERANKING = "reranking"
MEASURES = ("ndcg@10", "mrr@10", "recall@5")
"""Reranking moves documents within its depth, which is 10 at least; deeper measures would say little about it."""

PerQuery = dict[str, dict[str, float]]


def evaluate_reranker(run: Path, name: str, config: RunConfig) -> dict[str, Any]:
    """Retrieve the test queries' first documents, rerank them, and measure both orders.

    Args:
        run: holds a dataset, and maybe an adapter; `RUN/reranking` is written: report.json, per_query.jsonl,
            runs/{retrieved,reranked}.trec. Where `RUN/report.json` is, it gets the part `reranking`.
        name: a reranker: a run with one, a folder, or a hub id.
        config: shared fields, `rerank` and `evaluate`.

    Returns:
        what `RUN/reranking/report.json` holds.

    Raises:
        StorageError: no dataset, or no reranker there.
        UsageError: the dataset holds labelled pairs.
        DataError: nothing to test on.
        ModelError: the reranker cannot be used.
    """
    started = time.monotonic()
    task = one_task(run, config)
    config, dataset = task.config, task.dataset
    out, adapter = task.folder / RUN_RERANKING, run / "adapter"
    data, depth = open_retrieval_dataset(dataset), config.rerank.rerank_depth
    settings = {"reranker": name, **effective(config, "rerank", "evaluate")}
    inputs = {"dataset": hash_folder(dataset), "retriever": retriever_hash(adapter, config)}
    inputs["reranker"] = reranker_source(name).fingerprint
    if processes.on_main(lambda: is_current(out, settings, inputs)):
        return read_json(out / REPORT_FILE)
    queries, qrels = judged_queries(data)
    retriever, which = load_retriever(adapter, config)
    retrieved = rank(retriever, queries, data.corpus, depth, cache=cache_folder(task.folder))
    reranker = load_reranker(name, config)
    reranked = rerank(reranker, retrieved, queries, data.corpus, depth, label="rerank")
    runs = {"retrieved": retrieved, "reranked": reranked}
    scored = {order: evaluate_run(found, qrels) for order, found in runs.items()}
    per_query = {order: found for order, (_, found) in scored.items()}
    delta = _deltas(per_query["retrieved"], per_query["reranked"], config)
    report: dict[str, Any] = {
        "reranker": reranker.source.id,
        "retriever": which,
        "retriever_model": retriever.source.id,
        "depth": depth,
        "queries": len(queries),
        "documents": len(data.corpus),
        **{order: {measure: means[measure] for measure in MEASURES} for order, (means, _) in scored.items()},
        "delta": delta,
        "verdict": verdict(delta["ndcg@10"]),
        "confidence": config.evaluate.confidence,
        "timings": {"rerank_s": round(time.monotonic() - started, 3)},
    }

    def write() -> dict[str, Any]:
        with artifact(out, settings, inputs) as fresh:
            _write(fresh, runs, per_query, depth)
            write_json(fresh / REPORT_FILE, report)
        if (run / REPORT_FILE).is_file():
            write_json(run / REPORT_FILE, read_json(run / REPORT_FILE) | {"reranking": report})
        return report

    return processes.on_main(write)


def _write(folder: Path, runs: Mapping[str, Run], per_query: Mapping[str, PerQuery], depth: int) -> None:
    """Both run files, and every query's scores."""
    (folder / "runs").mkdir()
    for order, run in runs.items():
        write_trec(folder / "runs" / f"{order}.trec", run, order, depth)
    rows = (
        {"query_id": query, **{order: found[query] for order, found in per_query.items()}}
        for query in per_query["retrieved"]
    )
    write_jsonl(folder / "per_query.jsonl", rows)


def _deltas(before: PerQuery, after: PerQuery, config: RunConfig) -> dict[str, Delta]:
    return {
        measure: paired_bootstrap(
            np.array([scores[measure] for scores in before.values()]),
            np.array([after[query][measure] for query in before]),
            resamples=config.evaluate.bootstrap,
            confidence=config.evaluate.confidence,
            seed=config.seed,
        )
        for measure in MEASURES
    }
