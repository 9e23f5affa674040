"""A cross-encoder made of an embedding model: what it adds to retrieval, and what is left of that in the embedder.

The data is cut, prepared and mined once. With each seed

- a MiniLM cross-encoder (a new head, all weights) is trained on the mined negatives, and puts the base's first
  `--depth` documents of every test query in order: "reranked" against "retrieved";
- an adapter is trained for one pass with InfoNCE; then it goes on for one more pass, once with the same loss and once
  imitating the cross-encoder's scores of each query's documents (KL): "distilled" against "trained on".

    python benchmarks/reranker.py PATH/TO/BEIR --out FOLDER [--pairs 2500] [--queries 400] [--seeds 3]

The test queries are `--queries` of the data's own, drawn with a fixed seed. What is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, with_overrides
from acclimate.data.dataset import load_dataset
from acclimate.evaluation.measures import evaluate_run
from acclimate.flows.reranker import evaluate_reranker, train_reranker
from acclimate.retrieval.rank import rank
from acclimate.runs.resolve import load
from acclimate.stages.mine import mine
from acclimate.stages.train import train
from common import gain, machine, once, prepared, table
from recipe import cut

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MEASURES = ("ndcg@10", "mrr@10")
RESCORED = 8
"""Candidates per query that the cross-encoder scores for the distillation."""
Scores = dict[str, dict[str, dict[str, float]]]
"""What was measured -> query id -> measure -> score."""


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=2500)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    shared = arguments.out / "shared"
    data = arguments.out / "data"
    if not data.exists():
        cut(arguments.data, data, arguments.pairs, arguments.queries)
    config = with_overrides(
        RunConfig(model=MODEL),
        {"rerank_depth": arguments.depth, "retriever": "base", "rerank_epochs": 1.0, "epochs": 1.0, "group_size": 3},
    )
    prepared(data, shared, config)
    for seed in range(arguments.seeds):
        run = arguments.out / f"seed-{seed}"
        once(run, partial(one_seed, shared, run, with_overrides(config, {"seed": seed})))
    results = [json.loads(path.read_text()) for path in sorted(arguments.out.glob("seed-*/result.json"))]
    report(results, arguments)


def one_seed(shared: Path, run: Path, config: RunConfig) -> Scores:
    """Train the cross-encoder and the three adapters, and measure them on the test queries."""
    for name in ("dataset", "negatives"):
        if not (run / name).exists():
            (run / name).symlink_to((shared / name).resolve())
    train_reranker(run, MODEL, config)
    evaluate_reranker(run, str(run), config)
    rows = [json.loads(line) for line in (run / "reranking" / "per_query.jsonl").read_text().splitlines()]
    found: Scores = {order: {row["query_id"]: row[order] for row in rows} for order in ("retrieved", "reranked")}
    teaching = with_overrides(config, {"reranker": str(run), "range_max": RESCORED, "relative_margin": None})
    mine(run / "dataset", run / "scored" / "negatives", teaching)
    first = run / "trained" / "adapter"
    go_on: dict[str, Any] = {"start_adapter": str(first), "learning_rate": 5e-4}
    imitate = {**go_on, "loss": "kl", "teacher_temperature": 2.0, "group_size": 5}
    train(run / "dataset", run / "negatives", first, config)
    train(run / "dataset", run / "negatives", run / "trained-on" / "adapter", with_overrides(config, go_on))
    scored = run / "scored" / "negatives"
    train(run / "dataset", scored, run / "distilled" / "adapter", with_overrides(config, imitate))
    for name in ("trained", "trained-on", "distilled"):
        found[name] = measure(run / "dataset", run / name / "adapter")
    return found


def measure(dataset: Path, adapter: Path) -> dict[str, dict[str, float]]:
    """Every test query's scores over the whole corpus."""
    data, encoder = load_dataset(dataset), load(adapter)
    qrels = data.qrels["test"]
    _, per_query = evaluate_run(rank(encoder, {q: data.queries[q] for q in qrels}, data.corpus, 10), qrels)
    return {query: {name: scores[name] for name in MEASURES} for query, scores in sorted(per_query.items())}


def report(results: list[Scores], arguments: argparse.Namespace) -> None:
    """A row per comparison and measure: means over seeds and queries, and the interval of the gain."""
    compared = (("retrieved", "reranked"), ("trained", "trained-on"), ("trained", "distilled"))
    compared += (("trained-on", "distilled"),)
    rows = []
    for before, after in compared:
        for measure_name in MEASURES:
            sides = [
                [{query: scores[measure_name] for query, scores in result[side].items()} for result in results]
                for side in (before, after)
            ]
            means = [sum(sum(seed.values()) / len(seed) for seed in side) / len(side) for side in sides]
            rows.append([before, after, measure_name, *(f"{mean:.4f}" for mean in means), gain(*sides)])
    print(
        f"{arguments.data.name}, {arguments.pairs} pairs, depth {arguments.depth}, {len(results)} seeds, {machine()}\n"
    )
    print(table(("before", "after", "measure", "before", "after", "gain [95 %]"), rows))


if __name__ == "__main__":
    main()
