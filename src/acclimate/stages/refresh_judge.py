"""`refresh`, last part: the candidate against the version in use."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from acclimate.configs import RunConfig, effective
from acclimate.data.dataset import Dataset
from acclimate.evaluation.compare import MAIN_MEASURE, METHOD, ModelScores, deltas, score
from acclimate.evaluation.later_feedback import compare_by_feedback, depth_of
from acclimate.evaluation.measures import relative_loss
from acclimate.evaluation.promotion import GuardMeasured, Measured, objections
from acclimate.feedback.opinions import OPINIONS_FILE, read_opinions
from acclimate.feedback.position import Examination
from acclimate.feedback.reports import Judged
from acclimate.files import hash_folder, read_json
from acclimate.models.adapter import load_adapter
from acclimate.models.encoder import Encoder
from acclimate.retrieval.rank import rank
from acclimate.runs.guards import guard_data, guard_hashes, guard_names
from acclimate.runs.opening import open_dataset
from acclimate.runs.resolve import load_pair
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.tasks import Task
from acclimate.runs.trained_on import trained_on, without_seen
from acclimate.runs.versions import NAME_CHARS
from acclimate.types import Split


class _Models(NamedTuple):
    base: Encoder
    before: Encoder
    candidate: Encoder


def refresh_judge(task: Task, refresh: RunFolder, before: Path, parts: Path, config: RunConfig) -> Judged:
    """Compare a candidate with the version in use, decide, and only then look at the test split; in `refresh/judged`.

    Args:
        task: the run's only one.
        refresh: with its dataset and the candidate.
        before: the version in use.
        parts: which dev queries are the gate, and which test queries are the later feedback.
        config: the whole run; `refresh` and `evaluate` count.
    """
    settings = effective(config, "refresh", "evaluate")
    inputs = {
        "method": METHOD,
        "dataset": hash_folder(refresh.dataset),
        "before": hash_folder(before),
        "candidate": hash_folder(refresh.adapter),
    } | guard_hashes(config.evaluate.guard)
    make = partial(_made, task, refresh, before, parts, config)
    return step("refresh: judge", refresh.judged, settings, inputs, make, seconds="judge_s", alone=True)


def _made(task: Task, refresh: RunFolder, before: Path, parts: Path, config: RunConfig) -> Work[Judged]:
    data, named = open_dataset(refresh.dataset), read_json(parts)
    base, current = load_pair(before, base=config.model, **config.loading)
    trained = dataclasses.replace(load_adapter(refresh.adapter, config.model), use=current.use)
    models = _Models(base, current, base.with_adapter(trained))
    measured = partial(_measured, models, cache=refresh.cache, config=config)
    seen = trained_on([str(refresh.adapter)])
    gate = measured(_asking(data, "dev", named["gate"])) | {"margin": config.refresh.gate_margin}
    later = _by_feedback(
        models,
        without_seen(_asking(data, "test", named["later"]), seen, "later feedback")[0],
        parts,
        refresh.cache,
        config,
    )
    guards = _guards(models, refresh, config)
    against = objections(gate, guards, later, guard_bound=config.evaluate.guard_bound)
    test: dict[str, Any] = {}
    own = open_dataset(task.dataset)
    if own.qrels.get("test"):
        tested, left_out = without_seen(own, seen, str(task.dataset))
        test = dict(measured(tested)) | {"trained_on": left_out}

    def write(_folder: Path) -> Judged:
        return {
            "before": before.name,
            "version": hash_folder(refresh.adapter)[:NAME_CHARS],
            "promotes": not against,
            "reason": "; ".join(against) or "as good on the gate and the guards, and better on later feedback",
            "gate": dict(gate),
            "guard": [dict(guard) for guard in guards],
            "later": dict(later),
            "test": test,
            "confidence": config.evaluate.confidence,
        }

    return Work(write)


def _asking(data: Dataset, split: Split, queries: Sequence[str]) -> Dataset:
    """The data with these queries of a split as its test split."""
    asked = {query: data.qrels[split][query] for query in queries}
    return dataclasses.replace(data, qrels={**data.qrels, "test": asked})


def _measured(models: _Models, data: Dataset, *, cache: Path, config: RunConfig) -> Measured:
    """The version in use and the candidate on a test split, through the same path."""
    before, after = (_score(model, data, cache, config) for model in (models.before, models.candidate))
    return _compared(data, before, after, config)


def _compared(data: Dataset, before: ModelScores, after: ModelScores, config: RunConfig) -> Measured:
    measure = MAIN_MEASURE[data.kind]
    split = data.pairs if data.kind == "pairs" else data.qrels
    return {
        "measure": measure,
        "queries": len(split["test"]),
        "before": before.measures[measure] or 0.0,
        "candidate": after.measures[measure] or 0.0,
        "delta": deltas(before, after, config.evaluate, config.seed)[measure],
    }


def _by_feedback(models: _Models, data: Dataset, parts: Path, cache: Path, config: RunConfig) -> Measured:
    """The same by what searchers have made of what they were shown."""
    queries = {name: data.queries[name] for name in data.qrels["test"]}
    said = [one for one in read_opinions(parts.with_name(OPINIONS_FILE)) if one.query in queries]
    known = read_json(parts)["examined"]
    before, candidate = (
        rank(model, queries, data.corpus, depth_of(said), cache=cache, label="judge")
        for model in (models.before, models.candidate)
    )
    examined = None if known is None else Examination(**known)
    return compare_by_feedback(said, before, candidate, examined, config.evaluate, config.seed)


def _score(model: Encoder, data: Dataset, cache: Path, config: RunConfig) -> ModelScores:
    return score(model, data, config.evaluate, cache=cache, label="judge")


def _guards(models: _Models, refresh: RunFolder, config: RunConfig) -> list[GuardMeasured]:
    """Both versions and the base on each guard; its margin is the bound, of the score of the version in use."""
    sources = config.evaluate.guard
    found = guard_data(sources, seed=config.seed, limit=config.limit) if sources else []
    plain = [model.for_task(None) for model in models]
    seen, rows = trained_on([str(refresh.adapter)]), list[GuardMeasured]()
    for name, data in zip(guard_names(sources), found, strict=True):
        left, _ = without_seen(data, seen, f"guard {name}")
        base, before, after = (_score(model, left, refresh.cache, config) for model in plain)
        compared, measure = _compared(left, before, after, config), MAIN_MEASURE[data.kind]
        margin = config.evaluate.guard_bound * abs(compared["before"])
        forgotten = relative_loss(base.measures, after.measures, measure)
        more = {"margin": margin, "name": name, "base": base.measures[measure] or 0.0, "forgotten": forgotten}
        rows.append({**compared, **more})  # type: ignore[typeddict-item]
    return rows
