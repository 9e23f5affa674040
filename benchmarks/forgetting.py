"""What adapting forgets, and what each remedy costs: the domain's dev queries beside data from outside it.

Every row is one training with the same data, seed and steps, its last step kept: the default, retaining the
training's own texts, retaining out-of-domain texts. (`acclimate merge --method interpolate` measures the way back.)
Guards are measured on their train and dev splits (at most 500 queries, 2,000 labelled pairs), so that their test splits
stay unseen; retrieval ranks a pool of 2,000 documents.

    python benchmarks/forgetting.py DOMAIN --guard DATA --guard DATA --other TEXTS --out FOLDER [--epochs 0.5]

A run that is finished is not run again, and a run that another process has begun is left to it: once the negatives are
mined, start the same command again to use two cores one thread each (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import machine, once, prepared, table

OWN_WEIGHTS = (1.0, 5.0)
OTHER_WEIGHTS = (5.0, 20.0, 100.0)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--guard", type=Path, action="append", required=True)
    parser.add_argument("--other", type=Path, action="append", required=True, help="texts to be retained")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=0.5)
    arguments = parser.parse_args()
    from acclimate.configs import RunConfig

    prepared(arguments.data, arguments.out / "shared", RunConfig())
    for name, settings in variants(arguments.other).items():
        run_once(arguments, name, settings)
    results = {path.parent.name: json.loads(path.read_text()) for path in sorted(arguments.out.glob("*/result.json"))}
    print(f"{arguments.data.name}, {arguments.epochs:g} passes, {machine()}\n")
    names = [arguments.data.name, *(guard.name for guard in arguments.guard)]
    print(table(("variant", *names, "tokens"), rows(results, names)))


def variants(others: list[Path]) -> dict[str, dict[str, Any]]:
    """Name -> settings that differ from the default."""
    own = {f"own texts, weight {weight:g}": {"retain_weight": weight} for weight in OWN_WEIGHTS}
    first, *further = others
    other = {
        f"{first.name}, weight {weight:g}": {"retain_data": str(first), "retain_weight": weight}
        for weight in OTHER_WEIGHTS
    }
    return {"default": {}, **own, **other, **{path.name: {"retain_data": str(path)} for path in further}}


def run_once(arguments: argparse.Namespace, name: str, settings: Mapping[str, Any]) -> None:
    """Train one variant and measure it, unless that is done or under way; with the default also the base."""
    from acclimate.configs import RunConfig, with_overrides
    from acclimate.runs.resolve import load
    from acclimate.stages.train import train

    run, shared = arguments.out / name, arguments.out / "shared"

    def work() -> dict[str, Any]:
        config = with_overrides(RunConfig(), {"epochs": arguments.epochs, "eval_steps": 10**9, "dev_documents": 200})
        trained = train(shared / "dataset", shared / "negatives", run / "adapter", with_overrides(config, settings))
        models = {"adapted": load(run / "adapter")} | ({} if settings else {"base": load(config.model)})
        scores = judges(arguments)
        measured = {name: {data: score(model) for data, score in scores.items()} for name, model in models.items()}
        return {"tokens": trained["train"]["tokens"], **measured}

    once(run, work)


def judges(arguments: argparse.Namespace) -> dict[str, Any]:
    """Name of the data -> what measures an encoder on it, never on a test split."""
    from acclimate.configs import RunConfig
    from acclimate.data.dataset import load_dataset
    from acclimate.evaluation.candidates import guard_score, score_on
    from acclimate.models.encoder import Encoder
    from acclimate.stages.prepare import prepare

    config = RunConfig()
    base, cache = Encoder.load(config.base_model, **config.loading), arguments.out / "shared" / ".work" / "cache"
    pool = {"documents": config.merge.pool_documents, "seed": config.seed, "cache": cache}
    domain = load_dataset(arguments.out / "shared" / "dataset")
    found = {arguments.data.name: score_on(domain, "dev", base, **pool)}
    for guard in arguments.guard:
        folder = arguments.out / "shared" / "guards" / guard.name
        prepare(str(guard), folder, config)
        _, found[guard.name] = guard_score(load_dataset(folder), base, **pool)
    return found


def rows(results: Mapping[str, Mapping[str, Any]], names: list[str]) -> list[list[str]]:
    """A row per variant; of the guards also the change against the base."""
    base = results["default"]["base"]
    found = [["the base", *(f"{base[name]:.4f}" for name in names), "0"]]
    for variant, result in results.items():
        scores = result["adapted"]
        guards = [f"{scores[name]:.4f} ({scores[name] / base[name] - 1:+.1%})" for name in names[1:]]
        found.append([variant, f"{scores[names[0]]:.4f}", *guards, f"{result['tokens']:,}"])
    return found


if __name__ == "__main__":
    main()
