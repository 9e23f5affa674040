"""What adapting forgets, and what each remedy costs: the domain's dev queries beside data from outside it.

Every row is a training with the same data and steps, its last step kept, once per seed: the default, retaining
out-of-domain texts, and with `--weights` other weights of these and of the training's own texts. (`acclimate merge
--method interpolate` measures the way back.) With several seeds, a cell is their mean, and of guards also the range.
Guards are measured on their train and dev splits (at most 500 queries, 2,000 labelled pairs), so that their test splits
stay unseen; retrieval ranks a pool of 2,000 documents.

    python benchmarks/forgetting.py DOMAIN --guard DATA --guard DATA --other TEXTS --out FOLDER [--epochs 0.5]
        [--seeds 3] [--weights]

A run that is finished is not run again, and a run that another process has begun is left to it: once the negatives are
mined, start the same command again to use two cores one thread each (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import machine, once, prepared, table

OWN_WEIGHTS = (1.0, 5.0)
OTHER_WEIGHTS = (5.0, 100.0)
"""Beside the default."""


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--guard", type=Path, action="append", required=True)
    parser.add_argument("--other", type=Path, action="append", required=True, help="texts to be retained")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--weights", action="store_true")
    arguments = parser.parse_args()
    from acclimate.configs import RunConfig

    prepared(arguments.data, arguments.out / "shared", RunConfig())
    chosen = variants(arguments.other, weights=arguments.weights)
    for seed in range(arguments.seeds):
        for name, settings in chosen.items():
            run_once(arguments, name, settings, seed)
    results = {name: finished(arguments, name) for name in chosen}
    print(f"{arguments.data.name}, {arguments.epochs:g} passes, {machine()}\n")
    names = [arguments.data.name, *(guard.name for guard in arguments.guard)]
    print(table(("variant", "seeds", *names, "tokens"), rows(results, names)))


def variants(others: list[Path], *, weights: bool) -> dict[str, dict[str, Any]]:
    """Name -> settings that differ from the default."""
    found: dict[str, dict[str, Any]] = {"default": {}}
    found |= {other.name: {"retain_data": str(other)} for other in others}
    if weights:
        first = others[0]
        found |= {f"own texts, weight {weight:g}": {"retain_weight": weight} for weight in OWN_WEIGHTS}
        for weight in OTHER_WEIGHTS:
            found[f"{first.name}, weight {weight:g}"] = {"retain_data": str(first), "retain_weight": weight}
    return found


def run_folder(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    """Where one variant with one seed is."""
    return arguments.out / f"{name}, seed {seed}"


def finished(arguments: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """What was measured of a variant, a result per seed."""
    paths = [run_folder(arguments, name, seed) / "result.json" for seed in range(arguments.seeds)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def run_once(arguments: argparse.Namespace, name: str, settings: Mapping[str, Any], seed: int) -> None:
    """Train one variant with one seed and measure it, unless that is done or under way; the default also the base."""
    from acclimate.configs import RunConfig, with_overrides
    from acclimate.runs.resolve import load
    from acclimate.stages.train import train

    run, shared = run_folder(arguments, name, seed), arguments.out / "shared"

    def work() -> dict[str, Any]:
        steps = {"epochs": arguments.epochs, "eval_steps": 10**9, "dev_documents": 200}
        config = with_overrides(RunConfig(), {**steps, "seed": seed})
        trained = train(shared / "dataset", shared / "negatives", run / "adapter", with_overrides(config, settings))
        models = {"adapted": load(run / "adapter")} | ({} if settings else {"base": load(config.base_model)})
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


def rows(results: Mapping[str, list[dict[str, Any]]], names: list[str]) -> list[list[str]]:
    """A row per variant: means over its seeds; of the guards also the change against the base."""
    base = results["default"][0]["base"]
    found = [["the base", "", *(f"{base[name]:.4f}" for name in names), "0"]]
    for variant, seeds in results.items():
        if not seeds:
            continue
        domain = statistics.mean(one["adapted"][names[0]] for one in seeds)
        guards = [cell([one["adapted"][name] for one in seeds], base[name]) for name in names[1:]]
        found.append([variant, str(len(seeds)), f"{domain:.4f}", *guards, f"{seeds[0]['tokens']:,}"])
    return found


def cell(scores: list[float], base: float) -> str:
    """The mean of some seeds' scores, its change against the base, and the lowest and highest change."""
    changes = [score / base - 1 for score in scores]
    range_ = f"; {min(changes):+.1%} to {max(changes):+.1%}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.4f} ({statistics.mean(changes):+.1%}{range_})"


if __name__ == "__main__":
    main()
