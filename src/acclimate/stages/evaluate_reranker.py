"""`evaluate-reranker`: the run's retrieval alone, and with its first documents put in order by a reranker."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from acclimate.configs import RunConfig, used
from acclimate.data.dataset import Dataset
from acclimate.evaluation.clusters import query_clusters
from acclimate.evaluation.compare import METHOD, judged_queries
from acclimate.evaluation.measures import evaluate_run
from acclimate.evaluation.reports import RerankingReport
from acclimate.evaluation.significance import Delta, compare_means, verdict
from acclimate.files import hash_folder, write_jsonl
from acclimate.formats.trained_on import TrainedOn
from acclimate.retrieval.own_documents import own_documents
from acclimate.retrieval.rank import rank
from acclimate.retrieval.rerank import rerank
from acclimate.retrieval.trec import write_trec
from acclimate.runs.opening import load_retriever, open_retrieval_dataset, retriever_hash
from acclimate.runs.resolve import load_reranker, reranker_source
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.trained_on import reranker_trained_on, trained_on, without_seen
from acclimate.types import Run

MEASURES = ("ndcg@10", "mrr@10", "recall@5")
"""Reranking moves documents within its depth, which is 10 at least; deeper measures would say little about it."""

PerQuery = dict[str, dict[str, float]]


def evaluate_reranker(dataset: Path, adapter: Path, name: str, out: Path, config: RunConfig) -> RerankingReport:
    """Retrieve the test queries' first documents, rerank them, and measure both orders.

    Args:
        dataset: a folder that `prepare` wrote.
        adapter: `RUN/adapter`; if it is there, it retrieves.
        name: a reranker: a run with one, a folder, or a hub id.
        out: `RUN/reranking`; gets report.json, per_query.jsonl, runs/{retrieved,reranked}.trec.
        config: shared fields, `rerank` and `evaluate`.

    Returns:
        what `out/report.json` holds.

    Raises:
        StorageError: no dataset, or no reranker there.
        UsageError: the dataset holds labelled pairs.
        DataError: nothing to test on.
        ModelError: the reranker cannot be used.
    """
    data = open_retrieval_dataset(dataset)
    settings = {"reranker": name, **used(config, "evaluate-reranker")}
    inputs = {
        "method": METHOD,
        "dataset": hash_folder(dataset),
        "retriever": retriever_hash(adapter, config.rerank.retriever, config.model, pooling=config.pooling),
        "reranker": reranker_source(name).fingerprint,
        "trained_on": _trained_on(adapter, name, config).sha256,
    }
    cache = RunFolder(out.parent).cache
    make = partial(_evaluate, data, adapter, name, cache, config)
    return step("evaluate reranker", out, settings, inputs, make, seconds="rerank_s", reads=[dataset, adapter, name])


def _trained_on(adapter: Path, name: str, config: RunConfig) -> TrainedOn:
    return trained_on([adapter, config.model]) | reranker_trained_on(name)


def _evaluate(data: Dataset, adapter: Path, name: str, cache: Path, config: RunConfig) -> Work[RerankingReport]:
    depth = config.rerank.rerank_depth
    seen = _trained_on(adapter, name, config)
    data, left_out = without_seen(data, seen, "the dataset")
    queries, qrels = judged_queries(data)
    retriever, which = load_retriever(adapter, config.rerank.retriever, config.model, **config.loading)
    own = own_documents(queries, data.corpus, qrels)
    retrieved = rank(retriever, queries, data.corpus, depth, own=own, cache=cache)
    reranker = load_reranker(name, config.rerank, device=config.device, dtype=config.dtype)
    reranked = rerank(reranker, retrieved, queries, data.corpus, depth, label="rerank")
    runs = {"retrieved": retrieved, "reranked": reranked}
    scored = {order: evaluate_run(found, qrels) for order, found in runs.items()}
    means = {order: {measure: found[measure] for measure in MEASURES} for order, (found, _) in scored.items()}
    per_query = {order: found for order, (_, found) in scored.items()}
    delta = _deltas(per_query["retrieved"], per_query["reranked"], data, config)

    def write(folder: Path) -> RerankingReport:
        _write(folder, runs, per_query, depth)
        return {
            "reranker": reranker.source.id,
            "retriever": which,
            "retriever_model": retriever.source.id,
            "depth": depth,
            "queries": len(queries),
            "documents": len(data.corpus),
            "trained_on": left_out,
            "training_known": seen.complete,
            "retrieved": means["retrieved"],
            "reranked": means["reranked"],
            "delta": delta,
            "verdict": verdict(delta["ndcg@10"]),
            "confidence": config.evaluate.confidence,
        }

    return Work(write)


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


def _deltas(before: PerQuery, after: PerQuery, data: Dataset, config: RunConfig) -> dict[str, Delta]:
    judged = {query: data.qrels["test"][query] for query in before}
    clusters = query_clusters(judged, data.queries, data.corpus)
    return {
        measure: compare_means(
            np.array([scores[measure] for scores in before.values()]),
            np.array([after[query][measure] for query in before]),
            flips=config.evaluate.sign_flips,
            confidence=config.evaluate.confidence,
            seed=config.seed,
            clusters=clusters,
        )
        for measure in MEASURES
    }
