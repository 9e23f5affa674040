"""The defaults that depend on a model's scale of scores, beside their alternatives, for several models and data sets.

Grids, each a training at half a pass or less; choose by dev, there is no test here:

    mining        the margin of mining: in spreads, relative (as sentence-transformers has it), none
    temperature   in spreads of the base's cosines
    share         the share of examples that get a hard negative at any rate
    in-batch      the margin of the in-batch mask, in spreads
    rate          LoRA's learning rate
    full-rate     the learning rate of all weights
    teacher       a reranker judges the candidates (`--reranker`)

and `false-negatives`, without training: half of every query's judgements are hidden, and of the negatives that each
margin lets through the share that is judged relevant is counted, beside sentence-transformers' own defaults.

    python benchmarks/defaults.py PATH/TO/BEIR … --out FOLDER [--model NAME …] [--only mining,rate] [--seeds 3]
        [--limit 1200] [--epochs 0.5] [--reranker NAME] [--table]

Every result is kept in a JSON file: a second start goes on, and what another process has begun is left to it. `--table`
only prints what is there. A gain is over the default; its interval draws seeds and dev queries anew.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from common import gain, machine, once, read_beir, table

MARGINS: dict[str, dict[str, Any]] = {
    "0.15 spreads": {"spread_margin": 0.15},
    "0.27 spreads": {"spread_margin": 0.27},
    "0.5 spreads": {"spread_margin": 0.5},
    "1 spread": {"spread_margin": 1.0},
    "relative 0.05": {"relative_margin": 0.05},
    "none": {"spread_margin": None},
}
RERANKED = ("0.27 spreads", "1 spread", "none")
"""What is counted with a reranker, which takes minutes for each."""
PEER = {"sentence-transformers": {"spread_margin": None, "num_negatives": 3, "hard_negative_share": 0.0}}
"""The defaults of its `mine_hard_negatives`: no margin, the three best-ranked."""
MINING = ("spread_margin", "relative_margin", "hard_negative_share", "reranker")
"""Settings of mining, which the negatives depend on."""
SPREADS = "temperature_spreads"
"""Stands for `temperature`, in units of the spread that mining has measured."""
GRIDS: dict[str, dict[str, dict[str, Any]]] = {
    "mining": MARGINS,
    "temperature": {f"{value:g} spreads": {SPREADS: value} for value in (0.1, 0.2, 0.45, 0.9, 2.3)},
    "in-batch": {
        **{f"{value:g} spreads": {"false_negative_spread_margin": value} for value in (0.0, 0.45, 0.9, 1.8)},
        "none": {"false_negative_spread_margin": None},
    },
    "share": {f"{value:g}": {"hard_negative_share": value} for value in (0.0, 0.3)},
    "rate": {f"{value:g}": {"learning_rate": value} for value in (1e-3, 2e-3, 4e-3, 8e-3)},
    "full-rate": {f"{value:g}": {"full": True, "learning_rate": value} for value in (1e-4, 2e-4, 4e-4, 8e-4)},
    "teacher": {},
}
"""Grid -> value -> the settings that differ from the default."""
DEFAULTS: dict[str, dict[str, Any]] = {"default": {}, "default, full": {"full": True}}
FALSE_NEGATIVES = "false-negatives"
POOL = 600
"""Documents that dev queries are ranked against."""
OTHERS = 2000
"""Documents of the corpus that are judged for no query of the sample, in the count of false negatives."""
MEASURE = "ndcg@10"


@dataclass(frozen=True)
class Place:
    """A model on a data set, and where their runs are."""

    model: str
    data: Path
    out: Path

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"{self.model.rstrip('/').rsplit('/', 1)[-1]}, {self.data.name}"

    @property
    def folder(self) -> Path:
        """Where its runs are."""
        return self.out / self.name.replace(", ", "-")

    @property
    def shared(self) -> Path:
        """Where its data and its negatives are, and the base's vectors."""
        return self.folder / "shared"


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="BEIR folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", action="append", help="a model; give it again for another one")
    parser.add_argument("--only", default=",".join([*GRIDS, FALSE_NEGATIVES]), help="which grids, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=1200, help="queries of each data set")
    parser.add_argument("--epochs", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--reranker", help="a teacher of false-negatives and teacher")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    models = arguments.model or ["sentence-transformers/all-MiniLM-L6-v2"]
    places = [Place(model, data, arguments.out) for data in arguments.data for model in models]
    wanted = arguments.only.split(",")
    if arguments.reranker:
        GRIDS["teacher"]["a reranker"] = {"reranker": arguments.reranker}
    for name in wanted if not arguments.table else ():
        for place in places:
            if name == FALSE_NEGATIVES:
                count_all(place, arguments)
            else:
                train_all(place, name, arguments)
    print(f"{arguments.epochs:g} passes, batches of {arguments.batch_size}, {arguments.limit} queries; {machine()}")
    for name in wanted:
        print(f"\n{name}\n")
        if name == FALSE_NEGATIVES:
            print(table(COUNT_HEADER, [row for place in places for row in count_rows(place)]))
        else:
            print(table(GRID_HEADER, [row for place in places for row in grid_rows(place, name, arguments.seeds)]))


def train_all(place: Place, grid: str, arguments: argparse.Namespace) -> None:
    """Train and measure the default and every value of a grid with every seed, seed by seed."""
    default = default_of(grid)
    variants = {default: DEFAULTS[default], **{f"{grid} {value}": rules for value, rules in GRIDS[grid].items()}}
    for seed in range(arguments.seeds):
        for name, rules in variants.items():
            run = run_folder(place, name, seed)
            print(f"{place.name}: {name}, seed {seed}", flush=True)
            once(run, lambda rules=rules, seed=seed, run=run: train_one(place, rules, seed, run, arguments))


def default_of(grid: str) -> str:
    """The variant that a grid's values are compared with."""
    return "default, full" if grid == "full-rate" else "default"


def run_folder(place: Place, name: str, seed: int) -> Path:
    """Where one variant with one seed is."""
    return place.folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def train_one(
    place: Place, rules: Mapping[str, Any], seed: int, run: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Prepare and mine unless that is done; train, and rank the dev queries."""
    from acclimate.configs import RunConfig, with_overrides
    from acclimate.files import read_json
    from acclimate.stages.train import train

    settings = {"limit": arguments.limit, "dev_fraction": 0.2, "epochs": arguments.epochs}
    settings |= {"batch_size": arguments.batch_size, "eval_steps": 10**9, "dev_documents": 1}
    config = with_overrides(RunConfig(model=place.model), settings)
    negatives = mined(place, rules, config)
    changed = dict(rules)
    if (spreads := changed.pop(SPREADS, None)) is not None:
        changed["temperature"] = spreads * read_json(negatives / "report.json")["score_spread"]
    link_cache(place.shared, run)
    config = with_overrides(config, {"seed": seed, **changed})
    done = train(place.shared / "dataset", negatives, run / "adapter", config)["train"]
    kept = ("steps", "step_s", "learning_rate", "scale", "hard_negative_share")
    return {"scores": measure(place, run / "adapter"), **{name: done.get(name) for name in kept}}


def mined(place: Place, rules: Mapping[str, Any], config: Any) -> Path:
    """The folder of negatives mined with the rules' own settings of mining; those of the default where it has none."""
    from acclimate.configs import with_overrides
    from acclimate.files import locked
    from acclimate.stages.mine import mine
    from acclimate.stages.prepare import prepare

    own = {name: value for name, value in rules.items() if name in MINING}
    name = "-".join(["negatives", *(f"{key}-{str(value).replace('/', '_')}" for key, value in own.items())])
    with locked(place.shared):
        prepare(str(place.data), place.shared / "dataset", config)
        mine(place.shared / "dataset", place.shared / name, with_overrides(config, own))
    return place.shared / name


def link_cache(shared: Path, run: Path) -> None:
    """Let a run read the vectors that mining has cached."""
    if not (run / ".work" / "cache").exists():
        (run / ".work").mkdir(parents=True, exist_ok=True)
        (run / ".work" / "cache").symlink_to((shared / ".work" / "cache").resolve())


def measure(place: Place, adapter: Path | None) -> dict[str, float]:
    """NDCG@10 of every dev query over the pool, by the adapted model or the base."""
    from acclimate.evaluation.measures import evaluate_run
    from acclimate.models.encoder import Encoder
    from acclimate.retrieval.rank import rank
    from acclimate.runs.resolve import load

    dev = pool(place)
    encoder = Encoder.load(place.model) if adapter is None else load(adapter, base=place.model)
    _, per_query = evaluate_run(rank(encoder, dev.queries, dev.corpus, 10), dev.qrels)
    return {query: values[MEASURE] for query, values in sorted(per_query.items())}


@cache
def pool(place: Place) -> Any:
    """The dev queries and what they are ranked against: their answers, what the base ranks highest, a sample."""
    from acclimate.data.dataset import load_dataset
    from acclimate.evaluation.dev import dev_set
    from acclimate.models.encoder import Encoder
    from acclimate.retrieval.vector_cache import encode_corpus

    data, encoder = load_dataset(place.shared / "dataset"), Encoder.load(place.model)
    vectors = encode_corpus(encoder, list(data.corpus.values()), place.shared / ".work" / "cache")
    return dev_set(encoder, data.corpus, vectors, data.queries, data.qrels["dev"], POOL, seed=0)


GRID_HEADER = ("model, data", "value", "seeds", "dev NDCG@10", "gain over the default [95 %]", "hard negatives", "s")


def grid_rows(place: Place, grid: str, seeds: int) -> Iterator[list[str]]:
    """A row for the default, and one per value."""
    default = results(place, default_of(grid), seeds)
    for name in (default_of(grid), *(f"{grid} {value}" for value in GRIDS[grid])):
        found = results(place, name, seeds)
        both = sorted(found.keys() & default.keys())
        if not found:
            continue
        change = ""
        if both and name != default_of(grid):
            change = gain([default[seed]["scores"] for seed in both], [found[seed]["scores"] for seed in both])
        dev = np.mean([np.mean(list(one["scores"].values())) for one in found.values()])
        share = np.mean([one["hard_negative_share"] or 0.0 for one in found.values()])
        seconds = np.mean([one["step_s"] for one in found.values()])
        value = name.removeprefix(f"{grid} ") if name not in DEFAULTS else described(name, found)
        yield [place.name, value, str(len(found)), f"{dev:.4f}", change, f"{share:.0%}", f"{seconds:.0f}"]


def described(name: str, found: Mapping[int, Mapping[str, Any]]) -> str:
    """What the default came to."""
    one = next(iter(found.values()))
    scale = one["scale"]
    return (
        f"{name}: rate {one['learning_rate']:g}, temperature {scale['temperature']:.3g} ({scale['temperature_from']})"
    )


def results(place: Place, name: str, seeds: int) -> dict[int, dict[str, Any]]:
    """Seed -> what was measured."""
    paths = {seed: run_folder(place, name, seed) / "result.json" for seed in range(seeds)}
    return {seed: json.loads(path.read_text()) for seed, path in paths.items() if path.exists()}


def count_all(place: Place, arguments: argparse.Namespace) -> None:
    """Mine with every margin while half of the judgements are hidden, and count what of them comes out."""
    for teacher in (None, arguments.reranker) if arguments.reranker else (None,):
        label = "" if teacher is None else f" reranker-{teacher.rstrip('/').rsplit('/', 1)[-1]}"
        for value, rules in {**MARGINS, **PEER}.items():
            if teacher is not None and value not in RERANKED:
                continue
            run = run_folder(place, f"{FALSE_NEGATIVES}{label} {value}", 0)
            print(f"{place.name}: false negatives{label}, {value}", flush=True)
            once(run, lambda rules=rules, teacher=teacher: count_one(place, rules, teacher, arguments.limit))


def count_one(place: Place, rules: Mapping[str, Any], reranker: str | None, limit: int) -> dict[str, Any]:
    """Mine once; of the negatives, how many are judged relevant, and how many queries have as many as wanted."""
    from acclimate.configs import MineConfig
    from acclimate.mining.audit import Audit
    from acclimate.mining.mine import mine_negatives
    from acclimate.mining.mining_input import mining_input
    from acclimate.models.encoder import Encoder
    from acclimate.models.reranker import Reranker

    dataset, hidden = with_hidden(place.data, limit)
    config = MineConfig(**rules)
    audit, false = Audit(config, {}), 0
    teacher = Reranker.load(reranker) if reranker else None
    blocks = mine_negatives(
        mining_input(dataset), Encoder.load(place.model), config, 0, reranker=teacher, cache=place.folder / "hidden"
    )
    for block in blocks:
        audit.add(block)
        false += sum(one.document in hidden[mined.query] for mined in block.queries for one in mined.negatives)
    counts = ("queries", "negatives", "queries_with_too_few", "queries_without_negatives", "score_spread", "removed")
    summary = audit.summary()
    return {"teacher": reranker or "", "false": false, **{name: summary[name] for name in (*counts, "filled")}}


@cache
def with_hidden(data: Path, limit: int) -> tuple[Any, dict[str, set[str]]]:
    """A dataset in which queries keep half of their relevant documents (at least one), and the texts of the others."""
    from acclimate.data.dataset import Dataset
    from acclimate.types import Example

    corpus, queries, qrels = read_beir(data)
    generator = random.Random(0)
    relevant = {query: sorted(d for d, grade in of.items() if grade > 0) for query, of in qrels["train"].items()}
    several = sorted(query for query, documents in relevant.items() if len(documents) > 1)
    chosen = generator.sample(several, min(limit, len(several)))
    kept: dict[str, dict[str, int]] = {}
    hidden: dict[str, set[str]] = {}
    for query in chosen:
        documents = generator.sample(relevant[query], len(relevant[query]))
        shown = (len(documents) + 1) // 2
        kept[query] = dict.fromkeys(documents[:shown], 1)
        hidden.setdefault(queries[query], set()).update(corpus[document] for document in documents[shown:])
    judged = {document for query in chosen for document in relevant[query]}
    others = [document for document in corpus if document not in judged]
    judged.update(generator.sample(others, min(OTHERS, len(others))))
    examples = [Example(queries[query], corpus[document]) for query, of in kept.items() for document in of]
    texts = {document: text for document, text in corpus.items() if document in judged}
    return Dataset("retrieval", texts, {query: queries[query] for query in kept}, {"train": kept}, examples), hidden


COUNT_HEADER = ("model, data", "teacher", "margin", "spread", "with all wanted", "with none", "negatives", "false")


def count_rows(place: Place) -> Iterator[Sequence[str]]:
    """A row per teacher and margin."""
    for path in sorted(place.folder.glob(f"{FALSE_NEGATIVES}*/result.json")):
        found = json.loads(path.read_text())
        value = next(name for name in {**MARGINS, **PEER} if path.parent.name.endswith(f"{name.replace(' ', '-')}-0"))
        queries = found["queries"]
        yield [
            place.name,
            found["teacher"].rstrip("/").rsplit("/", 1)[-1] or "the model",
            value,
            f"{found['score_spread']:.4f}",
            f"{1 - found['queries_with_too_few'] / queries:.1%}",
            f"{found['queries_without_negatives'] / queries:.1%}",
            f"{found['negatives']:,}",
            f"{found['false'] / max(1, found['negatives']):.2%}",
        ]


if __name__ == "__main__":
    main()
