"""Whether keeping documents that are judged for test queries out of mining would flatter the proof.

A user's future queries are like test queries, but nobody can keep their documents out of mining. So the held-out
queries are cut into two halves, A and B, that share no document. One training mines in a corpus that lacks the
documents of A, the other in one that lacks those of B; all else is equal. Each adapter is measured on both halves,
over the whole corpus. The flattery is the score of a half whose documents were left out minus the score of the same
half whose documents were mined: positive where leaving out makes a test look better than the future.

    python benchmarks/judged.py PATH/TO/BEIR --out FOLDER [--splits 4] [--epochs 0.5]

A run that is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common import gain, machine, once, read_beir, table

SHARE = 0.2
"""Of all judged queries; each half of the held-out ones has half of it."""
Qrels = Mapping[str, Mapping[str, int]]


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=0.5)
    parser.add_argument("--sides", default="both")
    arguments = parser.parse_args()
    for seed in range(arguments.splits):
        halves = cut(arguments.data, arguments.out, seed)
        for left_out in ("A", "B"):
            run_once(arguments, seed, left_out, halves)
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(arguments.out.glob("*/result.json"))}
    print(f"{arguments.data.name}, {arguments.epochs:g} passes, sides {arguments.sides}, {machine()}\n")
    print(table(("split", "documents mined", "documents left out", "flattery [95 %]"), rows(found)))


def cut(data: Path, out: Path, seed: int) -> dict[str, Qrels]:
    """Cut halves A and B by whole components, and write a BEIR folder for each that lacks its documents."""
    corpus, queries, splits = read_beir(data)
    judged = {query: grades for qrels in splits.values() for query, grades in qrels.items()}
    halves: dict[str, dict[str, Mapping[str, int]]] = {"A": {}, "B": {}}
    wanted = int(SHARE * len(judged) / 2)
    components = list(in_components(judged, queries, corpus))
    random.Random(seed).shuffle(components)
    train = dict(judged)
    for component in components:
        if len(component) > wanted / 10:
            continue  # a large one stays in train: it would be most of a half
        smaller = min(halves.values(), key=len)
        if len(smaller) >= wanted:
            break
        smaller.update((query, train.pop(query)) for query in component)
    for left_out, tested in (("A", "B"), ("B", "A")):
        gone = {document for grades in halves[left_out].values() for document in grades}
        gone -= {document for grades in [*train.values(), *halves[tested].values()] for document in grades}
        write(out / f"data-{seed}-{left_out}", data, gone, {"train": train, "test": halves[tested]})
    return dict(halves)


def in_components(judged: Qrels, queries: Mapping[str, str], corpus: Mapping[str, str]) -> Iterable[list[str]]:
    """Lists of queries that share a document or a text."""
    from acclimate.evaluation.clusters import query_clusters

    by_cluster: dict[int, list[str]] = {}
    for query, cluster in zip(judged, query_clusters(judged, queries, corpus), strict=True):
        by_cluster.setdefault(cluster, []).append(query)
    return by_cluster.values()


def write(folder: Path, data: Path, gone: set[str], qrels: Mapping[str, Qrels]) -> None:
    """Write a BEIR folder with fewer documents and other judgements."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(data / "queries.jsonl", folder / "queries.jsonl")
    lines = (data / "corpus.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = "".join(line for line in lines if json.loads(line)["_id"] not in gone)
    (folder / "corpus.jsonl").write_text(kept, encoding="utf-8")
    for split, judged in qrels.items():
        rows = [f"{query}\t{document}\t{grade}" for query, of in judged.items() for document, grade in of.items()]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")


def run_once(arguments: argparse.Namespace, seed: int, left_out: str, halves: Mapping[str, Qrels]) -> None:
    """Mine in a corpus without one half's documents, train, and measure both halves, unless that is done."""
    from acclimate.configs import RunConfig, with_overrides
    from acclimate.stages.mine import mine
    from acclimate.stages.prepare import prepare
    from acclimate.stages.train import train

    run = arguments.out / f"{seed}-{left_out}"

    def work() -> dict[str, dict[str, float]]:
        settings = {"epochs": arguments.epochs, "seed": seed, "sides": arguments.sides}
        config = with_overrides(RunConfig(), {"eval_steps": 10**9, "dev_documents": 200, **settings})
        prepare(str(arguments.out / f"data-{seed}-{left_out}"), run / "dataset", config)
        mine(run / "dataset", run / "negatives", config)
        train(run / "dataset", run / "negatives", run / "adapter", config)
        return measure(arguments.data, run / "adapter", halves)

    once(run, work)


def measure(data: Path, adapter: Path, halves: Mapping[str, Qrels]) -> dict[str, dict[str, float]]:
    """NDCG@10 of every query of both halves, over the whole corpus."""
    from acclimate.evaluation.measures import evaluate_run
    from acclimate.retrieval.rank import rank
    from acclimate.runs.resolve import load

    corpus, queries, _ = read_beir(data)
    judged = {query: dict(grades) for half in halves.values() for query, grades in half.items()}
    ranking = rank(load(adapter), {query: queries[query] for query in judged}, corpus, 10)
    scores: dict[str, dict[str, float]] = {}
    for name, half in halves.items():
        _, per_query = evaluate_run(ranking, {query: judged[query] for query in half})
        scores[name] = {query: values["ndcg@10"] for query, values in sorted(per_query.items())}
    return scores


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row per split, and one over all of them: queries of both halves, with their documents mined and left out."""
    mined: dict[str, float] = {}
    left: dict[str, float] = {}
    lines = []
    for seed in sorted({name.partition("-")[0] for name in found}):
        if not {f"{seed}-A", f"{seed}-B"} <= found.keys():
            continue
        without_a, without_b = found[f"{seed}-A"], found[f"{seed}-B"]
        both = {**without_b["A"], **without_a["B"]}, {**without_a["A"], **without_b["B"]}
        lines.append(row(seed, *both))
        for whole, part in zip((mined, left), both, strict=True):
            whole.update({f"{seed} {query}": value for query, value in part.items()})
    return [*lines, row("all", mined, left)] if lines else []


def row(name: str, mined: Mapping[str, float], left: Mapping[str, float]) -> list[str]:
    """Both means, and the difference with its interval over the queries."""
    means = [f"{np.mean(list(scores.values())):.4f}" for scores in (mined, left)]
    return [name, *means, gain([mined], [left])]


if __name__ == "__main__":
    main()
