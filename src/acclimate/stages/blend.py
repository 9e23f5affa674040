"""`blend`: the adapters of the stages and the base, merged by weights that are chosen on dev."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from acclimate import processes
from acclimate.configs import RunConfig, effective
from acclimate.core.low_rank import merge_low_rank
from acclimate.data.dataset import Dataset
from acclimate.evaluation.candidates import Score, score_on
from acclimate.files import hash_folder
from acclimate.formats.trained_on import write_trained_on
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.progress import say
from acclimate.report.summary import BlendReport, Mixture
from acclimate.runs.opening import open_dataset
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.trained_on import asked_in, trained_on

Weights: TypeAlias = tuple[float, ...]
"""One per adapter; what is missing to a sum of 1 is the base's."""

MEASURE = "ndcg@10"
MIXES = (0.25, 0.5, 1.0)
"""Shares of the earlier stage that are tried beside the later one alone."""
SCALES = (0.8, 0.6, 0.4)
"""Then shares of the best mix, the rest being the base (WiSE-FT, Wortsman et al. 2022)."""


def blend(dataset: Path, adapters: Mapping[str, Path], out: Path, config: RunConfig) -> BlendReport:
    """Try mixtures of the adapters, then of the best one with the base; keep the best on dev, the last adapter on ties.

    The mixtures are exact: the update is sum_k w_k B_k A_k, of as many ranks as the adapters of weights above 0 have
    together.

    Args:
        dataset: a folder that `prepare` wrote, with a dev split.
        adapters: stage -> adapter folder, the later stage last; one or two.
        out: the adapter folder to write; `RUN/adapter` keeps its versions.
        config: the model, `train.dev_documents` and the seed: those of the trainings, so that the scores compare.

    Returns:
        what `out/report.json` holds: `merge` (the base's dev score, every mixture's, the chosen one) and `timings`.
    """
    settings = effective(config, "train", "objective")
    inputs = {"dataset": hash_folder(dataset), **{name: hash_folder(folder) for name, folder in adapters.items()}}
    run = RunFolder(out.parent)
    make = partial(_blend, dataset, adapters, run, config)
    return step("merge", out, settings, inputs, make, seconds="merge_s", versioned=run.adapter == out)


def _blend(dataset: Path, adapters: Mapping[str, Path], run: RunFolder, config: RunConfig) -> Work[BlendReport]:
    base = Encoder.load(config.base_model, **config.loading)
    data = open_dataset(dataset)
    measure = _measure(data, base, run, config)
    stages = [load_adapter(folder) for folder in adapters.values()]
    scores: dict[Weights, float] = {}

    def score(weights: Weights) -> float:
        if weights not in scores:
            scores[weights] = processes.from_main(measure(base.with_adapter(_mixed(stages, weights))))
            say(f"merge: dev {MEASURE} {scores[weights]:.4f} of {_named(adapters, weights)}")
        return scores[weights]

    chosen = _choose(len(stages), score)
    merge: Mixture = {
        "measure": MEASURE,
        "base": measure(base),
        "candidates": [{**_named(adapters, weights), "dev": value} for weights, value in scores.items()],
        "chosen": {**_named(adapters, chosen), "dev": scores[chosen]},
    }
    adapter = dataclasses.replace(_mixed(stages, chosen), metrics={**stages[-1].metrics, "merge": merge["chosen"]})

    def write(folder: Path) -> BlendReport:
        save_adapter(folder, adapter, base.source)
        write_trained_on(folder, trained_on([*adapters.values(), config.base_model]) | asked_in(data, ("dev",)))
        return {"merge": merge}

    return Work(write)


def _choose(stages: int, score: Callable[[Weights], float]) -> Weights:
    """The best weights, greedily: the mix of the stages first, then how much of it; equal scores keep the earlier."""
    best: Weights = (0.0, 1.0) if stages == 2 else (1.0,)
    mixes = [best] + ([(share, 1.0 - share) for share in MIXES] if stages == 2 else [])
    best = max(mixes, key=score)
    return max([best, *(tuple(scale * weight for weight in best) for scale in SCALES)], key=score)


def _mixed(stages: Sequence[Adapter], weights: Weights) -> Adapter:
    modules, _ = merge_low_rank([stage.modules for stage in stages], "task-arithmetic", weights)
    rank = max(len(A_rI) for A_rI, _ in modules.values())
    return dataclasses.replace(stages[-1], modules=modules, rank=rank, alpha=float(rank))


def _measure(data: Dataset, base: Encoder, run: RunFolder, config: RunConfig) -> Score:
    """By the queries and the pool that the trainings were watched by."""
    pool = config.train.dev_documents or len(data.corpus)
    return score_on(data, "dev", base, documents=pool, seed=config.seed, cache=run.cache)


def _named(adapters: Mapping[str, Path], weights: Weights) -> dict[str, float]:
    """Every stage's weight, and what the base keeps."""
    named = {name: round(weight, 4) for name, weight in zip(adapters, weights, strict=True)}
    return {**named, "base": round(1.0 - sum(weights), 4)}
