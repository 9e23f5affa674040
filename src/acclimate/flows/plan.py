"""`adapt --dry-run`: how much there is to do, before anything is written."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.configs import RunConfig
from acclimate.data.build import build_datasets
from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly, sides
from acclimate.data.splits import ALL_DATA, Fold
from acclimate.data.weak import weak_pairs
from acclimate.flows.adapt import require_test
from acclimate.flows.folds import one_dataset
from acclimate.models.devices import activation_gb
from acclimate.models.encoder import Encoder
from acclimate.models.reading import reading_warnings
from acclimate.progress import say
from acclimate.runs.tasks import all_tasks
from acclimate.types import Example, Rejected

SAMPLE_TEXTS = 256
SAMPLE_LENGTHS = 1000
TRAINING_COST = 3.2
"""Seconds of training per second of encoding the same tokens: forward, backward, and the adapter's own products."""
GIB = 2**30


def plan(source: str | None, config: RunConfig) -> dict[str, Any]:
    """Read the data and the model, time a sample, and say what `adapt` would do.

    Args:
        source: what `adapt` would be given.
        config: every setting of every stage.

    Returns:
        pairs, texts, tokens, steps, and estimates of minutes and memory (in GiB), for each task where there are
        several, with what they come to; nothing is written.
    """
    if config.stages.folds is not None:
        return _plan_of_folds(source, config)
    tasks = all_tasks(Path(), config, source)
    built = build_datasets([(t.source, t.config.prepare) for t in tasks], seed=config.seed, limit=config.limit)
    for task, (dataset, _) in zip(tasks, built, strict=True):
        require_test(task, "test" in dataset.qrels or "test" in dataset.pairs)
    plans = {task.name: _plan_of_task(*data, task.config) for task, data in zip(tasks, built, strict=True)}
    if len(plans) == 1:
        return plans.popitem()[1]
    total = sum(plan["estimated_minutes"]["total"] for plan in plans.values())
    return {
        **{str(name): plan for name, plan in plans.items()},
        "steps": sum(plan["steps"] for plan in plans.values()),
        "estimated_minutes": round(total, 1),
        "estimated_memory_gib": max(plan["estimated_memory_gib"] for plan in plans.values()),
    }


def _plan_of_folds(source: str | None, config: RunConfig) -> dict[str, Any]:
    """The trainings of the folds, each about as long as the first, and the one on all data."""
    task, folds = one_dataset(Path(), config, source)

    def plan_of(fold: Fold) -> dict[str, Any]:
        settings = [(task.source, task.config.prepare)]
        (built,) = build_datasets(settings, seed=config.seed, limit=config.limit, fold=fold)
        return _plan_of_task(*built, task.config)

    fold, whole = plan_of(folds[0]), plan_of(ALL_DATA)
    minutes = len(folds) * fold["estimated_minutes"]["total"] + whole["estimated_minutes"]["total"]
    return {
        "folds": len(folds),
        "each fold, as the first": fold,
        "the adapter that is kept": whole,
        "steps": len(folds) * fold["steps"] + whole["steps"],
        "estimated_minutes": round(minutes, 1),
        "estimated_memory_gib": max(fold["estimated_memory_gib"], whole["estimated_memory_gib"]),
    }


def _plan_of_task(dataset: Dataset, rejected: Sequence[Rejected], config: RunConfig) -> dict[str, Any]:
    encoder = Encoder.load(config.base_model, **config.loading)
    for note in reading_warnings({side: encoder.reading(evenly(texts)) for side, texts in sides(dataset).items()}):
        say(f"warning: {note}")
    rate = _tokens_per_second(encoder, dataset)
    corpus_tokens, training_tokens = _corpus_tokens(encoder, dataset), _training_tokens(encoder, dataset, config)
    test_tokens = _tokens(encoder, [text for pair in dataset.pairs.get("test", []) for text in _both(pair)])
    passes = 2 if dataset.kind == "pairs" else 2 + (config.train.sides == "both")
    steps = _steps(dataset.examples, config.train.epochs, config)
    weak = _weak(dataset, config)
    if weak:
        steps += _steps(weak, config.stages.weak_epochs, config)
        weak_tokens = _tokens(encoder, [text for pair in weak for text in (pair.anchor, pair.positive)])
        training_tokens += round(config.stages.weak_epochs * weak_tokens)
        passes += config.train.sides == "both"  # the first stage's model mines
    minutes = {
        "train": training_tokens * TRAINING_COST / rate / 60,
        "mine_and_evaluate": (corpus_tokens + test_tokens) * passes / rate / 60,
    }
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in encoder.model.parameters())
    vectors = 4 * encoder.use.dim * (len(dataset.corpus) + len(dataset.queries))
    memory = (parameters + vectors) / GIB + (config.train.activation_memory_gb or activation_gb(encoder.device))
    return {
        "kind": dataset.kind,
        "training_examples": len(dataset.examples),
        **({"weak_pairs": len(weak)} if weak else {}),
        "documents": len(dataset.corpus),
        "test_queries": len(dataset.qrels.get("test", {})) or len(dataset.pairs.get("test", [])),
        "rejected_rows": len(rejected),
        "corpus_tokens": corpus_tokens,
        "training_tokens": training_tokens,
        "steps": steps,
        "encoding_tokens_per_s": round(rate),
        "estimated_minutes": {name: round(value, 1) for name, value in minutes.items()}
        | {"total": round(sum(minutes.values()), 1)},
        "estimated_memory_gib": round(memory, 1),
    }


def _steps(examples: Sequence[Example], epochs: float, config: RunConfig) -> int:
    return math.ceil(epochs * math.ceil(len(examples) / config.train.batch_size))


def _weak(dataset: Dataset, config: RunConfig) -> list[Example]:
    """The first stage's training rows, where there are three stages."""
    if config.stages.recipe == "one-stage" or dataset.kind == "pairs":
        return []
    stages = config.stages
    pairs = weak_pairs(dataset, stages.weak_pairs, stages.weak_limit, config.seed)
    return [example for found in pairs.values() for example in found]


def _both(pair: Any) -> tuple[str, str]:
    return pair.sentence1, pair.sentence2


def _corpus_tokens(encoder: Encoder, dataset: Dataset) -> int:
    return _tokens(encoder, list(dataset.corpus.values()))


def _training_tokens(encoder: Encoder, dataset: Dataset, config: RunConfig) -> int:
    """Tokens of all passes: anchors, positives, and as many negatives, of a document's mean length, as are drawn."""
    anchors = _tokens(encoder, [example.anchor for example in dataset.examples])
    positives = _tokens(encoder, [example.positive for example in dataset.examples])
    negatives = config.train.group_size - 1 if dataset.kind == "retrieval" else 0
    documents = 0 if config.train.sides == "query" else positives * (1 + negatives)
    return round(config.train.epochs * (anchors + documents))


def _tokens(encoder: Encoder, texts: list[str]) -> int:
    """Tokens of the texts, reckoned from at most a thousand of them, evenly spaced."""
    if not texts:
        return 0
    chosen = texts[:: max(1, len(texts) // SAMPLE_LENGTHS)]
    return round(len(texts) * float(np.mean(encoder.tokenise(chosen, "document").lengths)))


def _tokens_per_second(encoder: Encoder, dataset: Dataset) -> float:
    pool = list(dataset.corpus.values()) or [pair.sentence1 for pair in dataset.pairs["train"]]
    texts = pool[:: max(1, len(pool) // SAMPLE_TEXTS)][:SAMPLE_TEXTS]
    encoder.encode(texts[:16])  # the first call pays for set-up
    started = time.perf_counter()
    encoder.encode(texts)
    return float(encoder.tokenise(texts, "document").lengths.sum()) / (time.perf_counter() - started)
