"""Adapting on documents alone: each source of pairs alone, all and the default ones together, and labelled pairs.

Of a BEIR folder the documents are taken without their queries; pairs are made of them, a model is adapted, and both it
and the base are measured on the users' test queries of the folder, over all of its documents. Every variant is a run of
its own in OUT, and what is finished is not made again: start the same command again after an interruption. One result
is written per variant, so several machines can share OUT.

    python benchmarks/pairs.py PATH/TO/BEIR --out OUT [--model MODEL] [--limit 2000] [--first-sentence]

`--limit` takes that many documents, with those of the test queries among them, and at most a tenth as many test
queries. `--first-sentence` makes a title of the first sentence, for data whose texts begin with theirs. With `--llm`
and `--llm-model` there is a variant `written`, too.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, with_overrides
from acclimate.configs.pairs import PAIR_SOURCES
from common import machine, once, read_beir, table

SEED = 0
SENTENCE = re.compile(r"(?<=[.?!。？！])\s*")
TOGETHER = "together"
DEFAULTS = "defaults"
"""The sources that are used where none is named."""
LABELLED = "labelled"
MEASURE = "ndcg@10"


def main() -> None:
    """Cut the data, make every variant that is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int, help="documents")
    parser.add_argument("--pairs-limit", type=int, default=5000, help="of each source")
    parser.add_argument("--first-sentence", action="store_true")
    parser.add_argument("--variants", nargs="+", help="of those that the table shows; all if not given")
    parser.add_argument("--llm")
    parser.add_argument("--llm-model")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = with_overrides(RunConfig(), {"model": arguments.model, "seed": SEED})
    data, documents = cut(arguments)
    variants = [*PAIR_SOURCES, *["written"] * bool(arguments.llm), TOGETHER, DEFAULTS, LABELLED]
    for variant in variants:
        if arguments.variants is None or variant in arguments.variants:
            run = arguments.out / variant
            run.mkdir(exist_ok=True)
            once(run, lambda run=run, variant=variant: measured(variant, run, data, documents, config, arguments))  # type: ignore[misc]
    report(arguments.out, variants)


def cut(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The data with its own queries, cut to the limit, and its documents alone."""
    data, documents = arguments.out / "data", arguments.out / "documents.jsonl"
    corpus, queries, qrels = read_beir(arguments.data)
    limit = arguments.limit or len(corpus)
    draw = random.Random(SEED)
    tested = sorted(qrels["test"]) if "test" in qrels else []
    tested = sorted(draw.sample(tested, min(len(tested), max(limit // 10, 100)))) if arguments.limit else tested
    judged = dict.fromkeys(key for query in tested for key in qrels["test"][query] if key in corpus)
    others = [key for key in corpus if key not in judged]
    draw.shuffle(others)
    kept = {*judged, *others[: max(limit - len(judged), 0)]}
    rows: dict[str, list[tuple[str, str, int]]] = {"test": [], "train": []}
    for split, chosen in (("test", tested), ("train", sorted(qrels.get("train", {})))):
        rows[split] = [(q, d, grade) for q in chosen for d, grade in qrels[split][q].items() if d in kept]
    asked = {query for judgements in rows.values() for query, _, _ in judgements}
    (data / "qrels").mkdir(parents=True, exist_ok=True)
    write(data / "corpus.jsonl", [{"_id": key, "text": corpus[key]} for key in corpus if key in kept])
    write(data / "queries.jsonl", [{"_id": key, "text": queries[key]} for key in queries if key in asked])
    for split, judgements in rows.items():
        lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{key}\t{grade}" for query, key, grade in judgements)]
        if judgements:
            (data / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write(documents, [document(key, corpus[key], arguments.first_sentence) for key in corpus if key in kept])
    return data, documents


def document(key: str, text: str, first_sentence: bool) -> dict[str, str]:
    """A document as its owner would have it, with a title if its first sentence is one."""
    if not first_sentence:
        return {"_id": key, "text": text}
    title, _, rest = SENTENCE.sub("\n", text, count=1).partition("\n")
    return {"_id": key, "title": title.strip(), "text": rest.strip()} if rest.strip() else {"_id": key, "text": text}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def measured(
    variant: str, run: Path, data: Path, documents: Path, config: RunConfig, arguments: argparse.Namespace
) -> Mapping[str, object]:
    """Make the pairs of a variant, adapt on them, and measure on the users' test queries."""
    from acclimate.errors import DataError
    from acclimate.stages.evaluate import evaluate
    from acclimate.stages.mine import mine
    from acclimate.stages.pairs import pairs
    from acclimate.stages.prepare import prepare
    from acclimate.stages.train import train

    real = arguments.out / "real"
    prepare(str(data), real / "dataset", config)
    dataset = real / "dataset"
    found: dict[str, Any] = {"pairs": 0}
    if variant != LABELLED:
        several = {TOGETHER: PAIR_SOURCES, DEFAULTS: config.pairs.pair_sources}
        sources = several.get(variant, (variant,) if variant in PAIR_SOURCES else ())
        settings: dict[str, Any] = {"pair_sources": sources, "pairs_limit": arguments.pairs_limit}
        if variant in ("written", *several):
            settings |= {"llm": arguments.llm, "llm_model": arguments.llm_model}
        try:
            made = pairs([documents], run / "pairs", with_overrides(config, settings))
        except DataError as error:
            return {"nothing": error.found}
        if made["pairs"] < 100:
            return {"nothing": f"{made['pairs']} pairs"}
        found["pairs"] = made["pairs"]
        dataset = run / "dataset"
        prepare(str(run / "pairs"), dataset, config)
    mine(dataset, run / "negatives", config)
    trained = train(dataset, run / "negatives", run / "adapter", config)
    if variant != LABELLED:
        proof = evaluate(dataset, run / "adapter", run / "evaluation", config)
        found["proof"] = {name: proof[name] for name in ("verdict", "recommend", "made_by")}
        found["proof"]["delta"] = proof["test"]["delta"][MEASURE]
    scored = evaluate(real / "dataset", run / "adapter", run / "real_evaluation", config)
    test = scored["test"]
    found |= {"examples": trained["train"]["examples"], "queries": test["queries"], "documents": test["documents"]}
    found |= {"base": test["base"][MEASURE], "adapted": test["adapted"][MEASURE], "delta": test["delta"][MEASURE]}
    return found | {"bm25": test["bm25"][MEASURE], "verdict": scored["verdict"]}


def report(out: Path, variants: list[str]) -> None:
    """Print what is there, a row for each variant."""
    rows, head = [], ""
    for variant in variants:
        path = out / variant / "result.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        if "nothing" in found:
            rows.append([variant, "", "", "", f"no run: {found['nothing']}", "", ""])
            continue
        delta, proof = found["delta"], found.get("proof")
        said = f"{proof['verdict']} ({proof['delta']['value']:+.4f}); {proof['recommend']}" if proof else ""
        change = f"{delta['value']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}]"
        numbers = [f"{found['examples']:,}", f"{found['base']:.4f}", f"{found['adapted']:.4f}"]
        rows.append([variant, *numbers, change, found["verdict"], said])
        head = f"{found['queries']} test queries, {found['documents']:,} documents, BM25 {found['bm25']:.4f}"
    print(machine())
    print(head)
    print(table(["pairs", "examples", "base", "adapted", "change", "verdict", "proof on made queries"], rows))


if __name__ == "__main__":
    main()
