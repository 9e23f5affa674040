"""What each setting of the training is worth: every variant against the default, same data, same steps, several seeds.

The data is prepared and mined once. Each (variant, seed) trains for the same number of passes, its last step is kept,
and the whole corpus is ranked for the dev and the test queries. Choose by the dev column; the test column is the proof.
The gain is the mean over the seeds of variant - default per query; its interval draws queries and seeds anew.

    python benchmarks/settings.py PATH/TO/BEIR --out FOLDER [--variants default,guide] [--seeds 3] [--epochs 0.25]

A run that is finished is not run again, and a run that another process has begun is left to it: once the negatives are
mined, start the same command again to use two cores one thread each (OMP_NUM_THREADS=1). `--table` only prints the
table of what is there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common import gain, machine, once, prepared, table

BASE = "sentence-transformers/all-MiniLM-L6-v2"
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "guide": {"guide": BASE},
    "adaptive temperature": {"temperature_kind": "adaptive"},
    "learned temperature": {"temperature_kind": "learned"},
    "extra blocks": {"blocks": ("query-document", "query-query", "document-document", "document-query")},
    "retaining": {"retain_weight": 1.0},
    "re-mining": {"remine_steps": 22},
    "three stages": {"recipe": "three-stage"},
}
"""Name -> settings that differ from the default."""
MERGED: dict[str, tuple[int, dict[str, Any]]] = {
    "interpolated 0.8": (1, {"method": "interpolate", "weights": (0.8,)}),
    "interpolated 0.6": (1, {"method": "interpolate", "weights": (0.6,)}),
    "average of two seeds": (2, {"method": "linear"}),
    "slerp of two seeds": (2, {"method": "slerp"}),
    "TIES of two seeds": (2, {"method": "ties"}),
}
"""Name -> how many of the default's adapters are merged (a seed's and the next ones'), and how."""
MEASURE = "ndcg@10"


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default=",".join([*VARIANTS, *MERGED]))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=0.25)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    names = arguments.variants.split(",")
    if not arguments.table:
        from acclimate.configs import RunConfig

        prepared(arguments.data, arguments.out / "shared", RunConfig())
        for seed in range(arguments.seeds):
            for name in names:
                if name in VARIANTS:
                    train_once(arguments, name, seed)
        for seed in range(arguments.seeds):
            for name in names:
                if name in MERGED:
                    merge_once(arguments, name, seed)
    results = [json.loads(path.read_text()) for path in sorted(arguments.out.glob("*/result.json"))]
    print(f"{arguments.data.name}, {arguments.epochs:g} passes, {machine()}\n")
    print(table(HEADER, rows([result for result in results if result["variant"] in names])))


def train_once(arguments: argparse.Namespace, name: str, seed: int) -> None:
    """Train and measure one variant with one seed, unless that is done or under way."""
    from acclimate.configs import RunConfig, with_overrides
    from acclimate.flows.adapt import three_stages
    from acclimate.stages.train import train

    shared = arguments.out / "shared"
    default = with_overrides(RunConfig(), {"epochs": arguments.epochs, "batch_size": arguments.batch_size})

    def work(run: Path) -> dict[str, Any]:
        if not (run / ".work" / "cache").exists():
            (run / ".work").mkdir(exist_ok=True)
            (run / ".work" / "cache").symlink_to((shared / ".work" / "cache").resolve())
        config = with_overrides(default, {"seed": seed, "eval_steps": 10**9, "dev_documents": 200, **VARIANTS[name]})
        if config.stages.recipe != "three-stage":
            return dict(train(shared / "dataset", shared / "negatives", run / "adapter", config)["train"])
        if not (run / "dataset").exists():
            (run / "dataset").symlink_to((shared / "dataset").resolve())
        _, report, stages = three_stages(run, config)
        report["train"]["tokens"] += stages[0]["tokens"]
        report["train"]["step_s"] += stages[0]["seconds"]
        return dict(report["train"])

    measured(arguments, name, seed, work)


def merge_once(arguments: argparse.Namespace, name: str, seed: int) -> None:
    """Merge adapters of the default and measure the result, unless that is done, under way, or they are not there."""
    from acclimate.configs import RunConfig, with_overrides
    from acclimate.stages.merge import merge

    count, merging = MERGED[name]
    seeds = [(seed + further) % arguments.seeds for further in range(count)]
    adapters = [folder_of(arguments, "default", one) / "adapter" for one in seeds]
    if len(set(seeds)) < count or not all(adapter.exists() for adapter in adapters):
        return

    def work(run: Path) -> dict[str, Any]:
        merge(adapters, run / "adapter", with_overrides(RunConfig(), merging))
        return {"tokens": 0, "step_s": 0.0}

    measured(arguments, name, seed, work)


def folder_of(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    """Where one variant with one seed is."""
    return Path(arguments.out) / f"{name.replace(' ', '-')}-{seed}"


def measured(arguments: argparse.Namespace, name: str, seed: int, work: Callable[[Path], dict[str, Any]]) -> None:
    """Let `work` write an adapter and measure it, unless that is done or another process is at it."""
    run = folder_of(arguments, name, seed)

    def result() -> dict[str, Any]:
        done = work(run)
        scores = measure(arguments.out / "shared" / "dataset", run / "adapter")
        return {"variant": name, "seed": seed, **scores, "tokens": done["tokens"], "train_s": done["step_s"]}

    once(run, result)


def measure(dataset: Path, adapter: Path) -> dict[str, Any]:
    """NDCG@10 of the dev and of the test queries over the whole corpus, and of every test query."""
    from acclimate.data.dataset import load_dataset
    from acclimate.evaluation.measures import evaluate_run
    from acclimate.retrieval.rank import rank
    from acclimate.runs.resolve import load

    data, encoder = load_dataset(dataset), load(adapter)
    judged = data.qrels["dev"] | data.qrels["test"]
    ranking = rank(encoder, {query: data.queries[query] for query in judged}, data.corpus, 10)
    dev, _ = evaluate_run(ranking, data.qrels["dev"])
    test, per_query = evaluate_run(ranking, data.qrels["test"])
    scores = {query: values[MEASURE] for query, values in sorted(per_query.items())}
    return {"dev": dev[MEASURE], "test": test[MEASURE], "per_query": scores}


HEADER = ("variant", "seeds", "dev NDCG@10", "test NDCG@10", "gain on test [95 %]", "tokens", "train s")


def rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """A row per variant, the best on dev first."""
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for result in results:
        by_name.setdefault(result["variant"], {})[result["seed"]] = result
    mean = {
        name: {key: float(np.mean([r[key] for r in runs.values()])) for key in ("dev", "test", "tokens", "train_s")}
        for name, runs in by_name.items()
    }
    return [
        [
            name,
            str(len(by_name[name])),
            f"{mean[name]['dev']:.4f}",
            f"{mean[name]['test']:.4f}",
            over_default(by_name, name),
            f"{mean[name]['tokens']:,.0f}",
            f"{mean[name]['train_s']:.0f}",
        ]
        for name in sorted(by_name, key=lambda name: -mean[name]["dev"])
    ]


def over_default(by_name: Mapping[str, Mapping[int, Mapping[str, Any]]], name: str) -> str:
    """The gain of a variant over the default, where there are seeds of both."""
    default = by_name.get("default", {})
    seeds = sorted(default.keys() & by_name[name].keys())
    if name == "default" or not seeds:
        return ""
    return gain([default[seed]["per_query"] for seed in seeds], [by_name[name][seed]["per_query"] for seed in seeds])


if __name__ == "__main__":
    main()
