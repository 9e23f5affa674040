"""Small query-side experts on several sets, and what routing between them gains over one pooled corpus.

    python benchmarks/routing.py DATA --out FOLDER --limit 400 --documents 200 --queries 120

DATA holds BEIR folders: nl2bash_en, bioasq_en, banking77_en (experts), scifact_en, agrieval_zh, tldr_zh (nobody's).
Each expert is trained on at most `--limit` pairs, for queries alone, so that all search one index of base vectors. Two
comparisons, each with `--seeds` trainings (dev split, first weights, order of batches) over the same queries:

    sets      the experts of three sets, one of them all, and the sets outside; queries that span two sets
    halves    two experts on the two topic halves of one set (2-means of the base's query vectors), and queries of both

A difference is that of the queries' means over the seeds, with the interval over clusters of queries; beside it what
each seed gave. `routing_latency.py` measures what each way of routing adds to a query.

Every part is kept in FOLDER once it is done; a second start goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.configs import RunConfig, with_overrides
from acclimate.evaluation.clusters import query_clusters
from acclimate.evaluation.significance import compare_means
from acclimate.files import WORK
from acclimate.models.encoder import Encoder
from acclimate.retrieval.centroids import fitted
from acclimate.stages.mine import mine
from acclimate.stages.prepare import prepare
from acclimate.stages.route import routing_test
from acclimate.stages.train import train
from common import machine, processor, read_beir, table

FLIPS = 10_000
EXPERTS = ("nl2bash_en", "bioasq_en", "banking77_en")
OUTSIDE = ("scifact_en", "agrieval_zh", "tldr_zh")
HALVED = "nl2bash_en"
SHOWN = ("oracle of the set", "auto by tokens", "mix", "uniform mix", "fuse")
"""Beside the base, what `auto` is compared with."""
SEED = 0
"""Of the cut of the data, and of the queries that span two sets."""
Rows = tuple[dict[str, str], dict[str, str], dict[str, dict[str, dict[str, int]]]]


def main() -> None:
    """Cut the data, train the experts, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1500, help="training pairs of an expert")
    parser.add_argument("--documents", type=int, default=3000, help="documents of a set, beside those that are judged")
    parser.add_argument("--queries", type=int, default=300, help="test queries of an expert's set")
    parser.add_argument("--outside-queries", type=int, default=300, help="of a set outside")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--experts", nargs="+", default=list(EXPERTS))
    parser.add_argument("--outside", nargs="+", default=list(OUTSIDE))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    print(f"{processor()}; {machine()}")
    out: Path = arguments.out
    cuts = {name: cut(arguments, name) for name in [*arguments.experts, *arguments.outside]}
    found: dict[str, list[dict[str, Any]]] = {"sets": [], "halves": []}
    halves = in_halves(arguments, cuts[HALVED])
    outside = tuple(str(cuts[name]) for name in arguments.outside)
    for seed in range(arguments.seeds):
        multi = expert(arguments, "all_in_one", [cuts[name] for name in arguments.experts], seed)
        runs = [expert(arguments, name, [cuts[name]], seed) for name in arguments.experts]
        config = with_overrides(configured(arguments, SEED), {"outside": outside, "multi_domain": str(multi)})
        found["sets"].append(kept(out / f"sets-{seed}.json", runs, config))
    for seed in range(arguments.seeds):
        runs = [expert(arguments, name, [folder], seed) for name, folder in halves.items()]
        found["halves"].append(kept(out / f"halves-{seed}.json", runs, configured(arguments, SEED)))
    for name, of_seeds in found.items():
        show(name, of_seeds)


def measure(runs: Sequence[Path], config: RunConfig) -> dict[str, Any]:
    """The scores of every query, set by set; and of the experts' own sets together."""
    test, _ = routing_test(runs, config)
    sets = [
        {
            "set": one.name,
            "kind": one.kind,
            "queries": list(one.queries),
            "clusters": query_clusters(one.qrels, one.queries, test.pool.corpus),
            "scores": {name: scores.tolist() for name, scores in test.scores_of(one).items()},
            "right": test.accuracy(one) if one.kind != "spanning" else {},
        }
        for one in test.pool.sets
    ]
    return {"documents": len(test.pool.corpus), "radii": dict(test.experts.router.radii), "sets": sets}


def configured(arguments: argparse.Namespace, seed: int) -> RunConfig:
    """Settings of all trainings with a seed."""
    settings: dict[str, Any] = {
        "sides": "query",
        "epochs": arguments.epochs,
        "batch_size": 64,
        "dev_fraction": 0.1,
        "num_negatives": 3,
    }
    return with_overrides(RunConfig(seed=seed, device=arguments.device), settings)


def kept(path: Path, runs: Sequence[Path], config: RunConfig) -> dict[str, Any]:
    """What a file holds, which is measured where it is not there."""
    if not path.exists():
        measured = json.dumps(measure(runs, config))
        path.write_text(measured)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def cut(arguments: argparse.Namespace, name: str) -> Path:
    """A part of a set: so many training pairs and test queries, and documents, with a fixed seed."""
    target: Path = arguments.out / "data" / name
    if (target / "qrels").is_dir():
        return target
    corpus, queries, qrels = read_beir(arguments.data / name)
    draw = random.Random(SEED)
    train = [(query, document) for query, judged in qrels["train"].items() for document in judged]
    pairs = 0 if name in arguments.outside else min(arguments.limit, len(train))
    train = sorted(draw.sample(train, pairs))
    most = arguments.outside_queries if name in arguments.outside else arguments.queries
    tested = sorted(draw.sample(sorted(qrels["test"]), min(most, len(qrels["test"]))))
    test = {query: qrels["test"][query] for query in tested}
    wanted = {document for _, document in train} | {document for judged in test.values() for document in judged}
    rest = sorted(set(corpus) - wanted)
    wanted |= set(draw.sample(rest, min(arguments.documents, len(rest))))
    trained: dict[str, dict[str, int]] = {}
    for query, document in train:
        trained.setdefault(query, {})[document] = 1
    return write_beir(
        target,
        (
            {key: corpus[key] for key in corpus if key in wanted},
            queries,
            {"test": test, **({"train": trained} if trained else {})},
        ),
    )


def write_beir(target: Path, rows: Rows) -> Path:
    """Write a BEIR folder with the queries that are judged."""
    corpus, queries, qrels = rows
    (target / "qrels.partial").mkdir(parents=True, exist_ok=True)
    used = {query for split in qrels.values() for query in split}
    for name, texts in (("corpus", corpus), ("queries", {key: queries[key] for key in queries if key in used})):
        lines = [json.dumps({"_id": key, "text": text}, ensure_ascii=False) for key, text in texts.items()]
        (target / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for split, judged in qrels.items():
        lines = [f"{query}\t{document}\t{grade}" for query, of in judged.items() for document, grade in of.items()]
        (target / "qrels.partial" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    (target / "qrels.partial").rename(target / "qrels")
    return target


def in_halves(arguments: argparse.Namespace, source: Path) -> dict[str, Path]:
    """The two topic halves of a set: queries by the nearer of two centroids; documents stay in both."""
    names = [f"{source.name}_{half}" for half in "ab"]
    targets = {name: arguments.out / "data" / name for name in names}
    if all((target / "qrels").is_dir() for target in targets.values()):
        return targets
    corpus, queries, qrels = read_beir(source)
    encoder = Encoder.load(device=arguments.device)
    ids = [query for split in qrels.values() for query in split]
    vectors = encoder.encode([queries[query] for query in ids], "query")
    domain = two_means(vectors)
    side = dict(zip(ids, np.argmax(vectors @ domain.T, axis=1).tolist(), strict=True))
    for half, target in enumerate(targets.values()):
        own = {split: {q: judged for q, judged in of.items() if side[q] == half} for split, of in qrels.items()}
        write_beir(target, (corpus, queries, own))
    return targets


def two_means(vectors: np.ndarray) -> np.ndarray:
    """Two centroids: the two farthest of some, moved by Lloyd's rounds."""
    some = fitted(vectors, vectors[:1], "").centroids
    first, second = np.unravel_index(np.argmin(some @ some.T), (len(some), len(some)))
    pair = some[[first, second]]
    for _ in range(20):
        nearer = np.argmax(vectors @ pair.T, axis=1)
        pair = np.stack([vectors[nearer == half].mean(axis=0) for half in (0, 1)])
        pair /= np.linalg.norm(pair, axis=1, keepdims=True)
    return pair


def expert(arguments: argparse.Namespace, name: str, sources: Sequence[Path], seed: int) -> Path:
    """A run with an adapter for queries, of one set or of several put together."""
    run: Path = arguments.out / "runs" / f"seed-{seed}" / name
    first: Path = arguments.out / "runs" / "seed-0" / name
    if run != first and not (run / WORK).exists():  # the base's vectors of the same documents
        shutil.copytree(first / WORK, run / WORK)
    source = sources[0] if len(sources) == 1 else together(arguments.out / "data" / name, sources)
    config = configured(arguments, seed)
    prepare(str(source), run / "dataset", config)
    mine(run / "dataset", run / "negatives", config)
    train(run / "dataset", run / "negatives", run / "adapter", config)
    return run


def together(target: Path, sources: Sequence[Path]) -> Path:
    """Several sets as one, for an adapter of all domains."""
    if (target / "qrels").is_dir():
        return target
    corpus: dict[str, str] = {}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, dict[str, int]]] = {"train": {}, "test": {}}
    for source in sources:
        documents, texts, judged = read_beir(source)
        corpus |= {f"{source.name}/{key}": text for key, text in documents.items()}
        queries |= {f"{source.name}/{key}": text for key, text in texts.items()}
        for split, of in judged.items():
            qrels[split] |= {
                f"{source.name}/{query}": {f"{source.name}/{document}": grade for document, grade in grades.items()}
                for query, grades in of.items()
            }
    return write_beir(target, (corpus, queries, qrels))


def show(name: str, of_seeds: Sequence[Mapping[str, Any]]) -> None:
    """Mean scores of all sets, and the differences that decide."""
    sets = [joined([found["sets"][place] for found in of_seeds]) for place in range(len(of_seeds[0]["sets"]))]
    own, outside = ([one for one in sets if one["kind"] == kind] for kind in ("own", "outside"))
    sets.append(put_together("all own sets", own))
    sets += [put_together("all outside", outside)] if len(outside) > 1 else []
    arms = list(sets[0]["scores"])
    print(f"\n## {name}: NDCG@10 over {of_seeds[0]['documents']:,} documents, means of {len(of_seeds)} seeds\n")
    columns = [f"{one['set']} ({len(one['clusters'])})" for one in sets]
    rows = [[arm, *(f"{one['scores'][arm].mean():.4f}" for one in sets)] for arm in arms]
    print(table(["answered by", *columns], rows), "\n")
    pairs = [
        *(("base", arm) for arm in ("auto", "mix", "fuse")),
        *(("auto", arm) for arm in (*SHOWN, *(arm for arm in arms if "multi-domain" in arm))),
    ]
    rows = []
    for one in sets:
        right = ", ".join(f"{router} {value:.1%}" for router, value in one["right"].items())
        rows.append([one["set"], right, *(delta(one, *pair) for pair in pairs)])
    print(table(["set", "sent where they belong", *(f"{after} - {before}" for before, after in pairs)], rows))


def joined(of_seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One set's scores [seeds, queries], of the queries that all seeds have."""
    first = of_seeds[0]
    common = [query for query in first["queries"] if all(query in found["queries"] for found in of_seeds)]

    def rows(found: Mapping[str, Any]) -> list[int]:
        place = {query: row for row, query in enumerate(found["queries"])}
        return [place[query] for query in common]

    return {
        **first,
        "clusters": np.array(first["clusters"])[rows(first)],
        "scores": {
            arm: np.array([np.array(found["scores"][arm])[rows(found)] for found in of_seeds])
            for arm in first["scores"]
        },
        "right": {router: float(np.mean([found["right"][router] for found in of_seeds])) for router in first["right"]},
    }


def put_together(name: str, sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several sets as one; their clusters stay apart."""
    return {
        "set": name,
        "right": {},
        "clusters": np.concatenate([1_000_000 * place + one["clusters"] for place, one in enumerate(sets)]),
        "scores": {arm: np.concatenate([one["scores"][arm] for one in sets], axis=1) for arm in sets[0]["scores"]},
    }


def delta(one: Mapping[str, Any], before: str, after: str) -> str:
    """The difference of the means over the seeds with its interval, and that of each seed."""
    scores = one["scores"]
    if after not in scores:
        return ""
    settings: dict[str, Any] = {"flips": FLIPS, "confidence": 0.95, "seed": SEED, "clusters": one["clusters"].tolist()}
    found = compare_means(scores[before].mean(axis=0), scores[after].mean(axis=0), **settings)
    each = ", ".join(f"{value:+.3f}" for value in (scores[after] - scores[before]).mean(axis=1))
    return f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}] ({each})"


if __name__ == "__main__":
    main()
