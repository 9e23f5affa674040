"""Small query-side experts on several sets, and what routing between them gains over one pooled corpus.

    python benchmarks/routing.py DATA --out FOLDER --limit 1500

DATA holds BEIR folders: nl2bash_en, bioasq_en, banking77_en (experts), scifact_en (nobody's). Each expert is trained on
at most `--limit` pairs, for queries alone, so that all search one index of base vectors. Three comparisons:

    sets      the experts of three sets, one of them all, and scifact_en outside; queries that span two sets
    halves    two experts on the two topic halves of one set (2-means of the base's query vectors), and queries of both
    latency   what each way of routing adds to a query, one query at a time

Every part is kept in FOLDER once it is done; a second start goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.configs import RunConfig, with_overrides
from acclimate.models.encoder import Encoder
from acclimate.retrieval.centroids import fitted
from acclimate.retrieval.experts import load_experts
from acclimate.retrieval.routing import route as decide
from acclimate.retrieval.token_router import TokenRouter
from acclimate.stages.mine import mine
from acclimate.stages.prepare import prepare
from acclimate.stages.route import route
from acclimate.stages.train import train
from common import machine, processor, read_beir, table

EXPERTS = ("nl2bash_en", "bioasq_en", "banking77_en")
OUTSIDE = "scifact_en"
HALVED = "nl2bash_en"
SEED = 0
Rows = tuple[dict[str, str], dict[str, str], dict[str, dict[str, dict[str, int]]]]


def main() -> None:
    """Cut the data, train the experts, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1500, help="training pairs of an expert")
    parser.add_argument("--documents", type=int, default=3000, help="documents of a set, beside those that are judged")
    parser.add_argument("--queries", type=int, default=300, help="test queries of a set")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--experts", nargs="+", default=list(EXPERTS))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    print(f"{processor()}; {machine()}")
    out = arguments.out
    cuts = {name: cut(arguments, name) for name in [*arguments.experts, OUTSIDE]}
    runs = [expert(arguments, name, [cuts[name]]) for name in arguments.experts]
    multi = expert(arguments, "all_in_one", [cuts[name] for name in arguments.experts])
    halves = [expert(arguments, name, [folder]) for name, folder in in_halves(arguments, cuts[HALVED]).items()]
    config = configured(arguments)
    outside = {"outside": (str(cuts[OUTSIDE]),), "multi_domain": str(multi)}
    for name, own, more in (("sets", runs, outside), ("halves", halves, {})):
        report = kept(out / f"{name}.json", lambda own=own, more=more: route(own, with_overrides(config, more)))  # type: ignore[misc]
        show(name, report)
    show_latency(kept(out / "latency.json", lambda: latency(runs, arguments.device)))


def configured(arguments: argparse.Namespace) -> RunConfig:
    """Settings of all trainings."""
    settings: dict[str, Any] = {
        "sides": "query",
        "epochs": arguments.epochs,
        "batch_size": 64,
        "dev_fraction": 0.1,
        "num_negatives": 3,
    }
    return with_overrides(RunConfig(seed=SEED, device=arguments.device), settings)


def kept(path: Path, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What a file holds, which is made where it is not there."""
    if not path.exists():
        made = json.dumps(work())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made)
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
    pairs = 0 if name == OUTSIDE else min(arguments.limit, len(train))
    train = sorted(draw.sample(train, pairs))
    tested = sorted(draw.sample(sorted(qrels["test"]), min(arguments.queries, len(qrels["test"]))))
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


def expert(arguments: argparse.Namespace, name: str, sources: Sequence[Path]) -> Path:
    """A run with an adapter for queries, of one set or of several put together."""
    run: Path = arguments.out / "runs" / name
    source = sources[0] if len(sources) == 1 else together(arguments.out / "data" / name, sources)
    config = configured(arguments)
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


def latency(runs: Sequence[Path], device: str) -> dict[str, Any]:
    """Milliseconds of a query, one at a time: median over the test queries."""
    experts = load_experts({run.name: run for run in runs}, device=device)
    trained = {
        run.name: [json.loads(line)["anchor"] for line in (run / "dataset" / "examples.jsonl").open()] for run in runs
    }
    started = time.perf_counter()
    tokens = TokenRouter.fit(experts.base.tokenizer, trained, {})
    fit_s = time.perf_counter() - started
    texts = [text for queries in trained.values() for text in queries[:100]]
    names, one = list(trained), runs[0].name
    vectors = {text: experts.base.encode([text], "query") for text in texts}

    def share(text: str, mode: Any) -> Mapping[str, float]:
        return decide(mode, experts.router.distances(vectors[text])[0], experts.router.radii).weights

    shares = {text: share(text, "mix") for text in texts}
    ways: dict[str, Callable[[str], object]] = {
        "one adapter, named": lambda text: experts.encode([text], [{one: 1.0}]),
        "centroids: the base's pass": lambda text: experts.base.encode([text], "query"),
        "centroids: distances and decision": lambda text: share(text, "auto"),
        "tokens: distances and decision": lambda text: decide("auto", tokens.distances([text])[0], tokens.radii),
        "two adapters in one pass": lambda text: experts.encode([text], [dict.fromkeys(names[:2], 0.5)]),
        "mix: the shares of the query": lambda text: experts.encode([text], [shares[text]]),
        "fuse: two adapters in one batch": lambda text: experts.encode([text] * 2, [{name: 1.0} for name in names[:2]]),
    }
    return {"fit_s": fit_s, "queries": len(texts), "ms": {name: median_ms(way, texts) for name, way in ways.items()}}


def median_ms(way: Callable[[str], object], texts: Sequence[str]) -> float:
    """Median milliseconds over the texts, after a few that are not counted."""
    for text in texts[:10]:
        way(text)
    times = []
    for text in texts:
        started = time.perf_counter()
        way(text)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def show(name: str, report: Mapping[str, Any]) -> None:
    """The scores of all sets, and the differences that decide."""
    arms = list(report["sets"][0]["scores"])
    print(f"\n## {name}: NDCG@10 over {report['documents']:,} documents; radii {report['radii']}\n")
    columns = [f"{row['set']} ({row['queries']})" for row in report["sets"]]
    print(
        table(
            ["answered by", *columns], [[arm, *(f"{row['scores'][arm]:.4f}" for row in report["sets"])] for arm in arms]
        )
    )
    print()
    rows = []
    for row in report["sets"]:
        right = ", ".join(f"{router} {value:.1%}" for router, value in row.get("accuracy", {}).items())
        deltas = [
            row["from_base"]["auto"],
            *(row["from_auto"].get(arm) for arm in ("oracle of the set", "mix", "fuse")),
        ]
        rows.append([row["set"], right, *(interval(delta) for delta in deltas)])
    print(table(["set", "right", "auto - base", "oracle of the set - auto", "mix - auto", "fuse - auto"], rows))
    print(f"\nmix on the queries that span two: {report['mix_on_spanning']}")


def interval(delta: Mapping[str, float] | None) -> str:
    """A difference with its interval."""
    return "" if delta is None else f"{delta['value']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}]"


def show_latency(found: Mapping[str, Any]) -> None:
    """Milliseconds of each step."""
    print(f"\n## latency: median of {found['queries']} queries; the token router is fitted in {found['fit_s']:.1f} s\n")
    print(table(["step", "ms"], [[name, f"{ms:.2f}"] for name, ms in found["ms"].items()]))


if __name__ == "__main__":
    main()
