"""`adapt --dry-run`: how much there is to do, before anything is written."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.configs import RunConfig
from acclimate.data.build import build_datasets
from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly, sides
from acclimate.data.splits import ALL_DATA, Fold
from acclimate.data.weak import weak_pairs
from acclimate.evaluation.dev import MAX_QUERIES
from acclimate.evaluation.domain import MAX_RELATED
from acclimate.evaluation.vocabulary import MAX_TEXTS
from acclimate.flows.adapt import read_with_test
from acclimate.flows.folds import one_dataset
from acclimate.flows.from_documents import without_writing
from acclimate.flows.pace import Pace, drawn_negatives, measure
from acclimate.models.devices import activation_gb
from acclimate.models.encoder import Encoder
from acclimate.models.reading import reading_warnings
from acclimate.progress import say
from acclimate.runs.guards import guard_data
from acclimate.runs.tasks import all_tasks
from acclimate.training.setup import evaluation_steps
from acclimate.training.task_training import DEV_DOCUMENTS, DEV_DOCUMENTS_PER_EXAMPLE
from acclimate.types import Example, Rejected, Split

SAMPLE_LENGTHS = 1000
TERM_TOKENS = 6
"""Tokens of a term of the domain, with those that the model puts around it."""
LOADS = 5
"""How often the model, or its tokenizer alone, is loaded: to prepare, mine, train, and both to evaluate; to save."""
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
    without_writing(source, config)
    if config.stages.folds is not None:
        return _plan_of_folds(source, config)
    tasks = all_tasks(Path(), config, source)
    started = time.perf_counter()
    built = read_with_test(tasks, config)
    read_s = (time.perf_counter() - started) / len(tasks)
    plans = {}
    for task, data in zip(tasks, built, strict=True):
        plans[task.name] = _plan_of_task(*data, task.config, read_s, _Model(data[0], task.config))
    if len(plans) == 1:
        return plans.popitem()[1]
    total = sum(plan["estimated_minutes"]["total"] for plan in plans.values())
    return {
        **{str(name): plan for name, plan in plans.items()},
        "steps": sum(plan["steps"] for plan in plans.values()),
        "estimated_minutes": round(total, 2),
        "estimated_memory_gib": max(plan["estimated_memory_gib"] for plan in plans.values()),
    }


class _Model:
    """The base, and how fast it is at the run's work: measured once, on some of a dataset."""

    def __init__(self, dataset: Dataset, config: RunConfig) -> None:
        self.encoder = Encoder.load(config.base_model, **config.loading)
        texts = {side: self.encoder.reading(evenly(texts)) for side, texts in sides(dataset).items()}
        for note in reading_warnings(texts):
            say(f"warning: {note}")
        say("a few steps of the work are timed; nothing is kept of them")
        self.pace = measure(self.encoder, dataset, config)

    def tokens(self, texts: Sequence[str]) -> int:
        """Tokens of the texts, reckoned from at most a thousand of them, evenly spaced."""
        if not texts:
            return 0
        lengths = self.encoder.tokenise(evenly(texts, SAMPLE_LENGTHS), "document").lengths
        return round(len(texts) * float(np.mean(lengths)))


def _plan_of_folds(source: str | None, config: RunConfig) -> dict[str, Any]:
    """The trainings of the folds, each about as long as the first, and the one on all data; the base's vectors are
    shared."""
    task, folds = one_dataset(Path(), config, source)

    def built(fold: Fold) -> tuple[tuple[Dataset, list[Rejected]], float]:
        started = time.perf_counter()
        settings = [(task.source, task.config.prepare)]
        (found,) = build_datasets(settings, seed=config.seed, limit=config.limit, fold=fold)
        return found, time.perf_counter() - started

    first, read_s = built(folds[0])
    model = _Model(first[0], task.config)
    fold = _plan_of_task(*first, task.config, read_s, model)
    whole = _plan_of_task(*built(ALL_DATA)[0], task.config, read_s, model)
    minutes = len(folds) * fold["estimated_minutes"]["total"] + whole["estimated_minutes"]["total"]
    minutes -= len(folds) * fold["estimated_minutes"]["encode"]
    return {
        "folds": len(folds),
        "each fold, as the first": fold,
        "the adapter that is kept": whole,
        "steps": len(folds) * fold["steps"] + whole["steps"],
        "estimated_minutes": round(minutes, 2),
        "estimated_memory_gib": max(fold["estimated_memory_gib"], whole["estimated_memory_gib"]),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Amounts:
    """What there is to do, in tokens where nothing else is said."""

    corpus: int
    documents: int
    """Documents."""
    training: int
    steps: int
    """Steps of all stages of the training."""
    queries: int
    """Training queries."""
    asked: int
    test: int
    tests: int
    """Test queries, or pairs."""
    dev: int
    """Dev queries, or pairs, of one evaluation; there are several in a training."""
    pool: int
    """Documents that dev queries are ranked against."""
    guards: int
    topics: int


def _plan_of_task(
    dataset: Dataset, rejected: Sequence[Rejected], config: RunConfig, read_s: float, model: _Model
) -> dict[str, Any]:
    weak = _weak(dataset, config)
    amounts, encoder = _amounts(dataset, weak, config, model), model.encoder
    seconds = _seconds(amounts, config, model.pace, mines=_mines(dataset, config), stages=1 + bool(weak))
    seconds["prepare"] += read_s
    minutes = {name: value / 60 for name, value in seconds.items()}
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in encoder.model.parameters())
    vectors = 4 * encoder.use.dim * (len(dataset.corpus) + len(dataset.queries))
    memory = (parameters + vectors) / GIB + (config.train.activation_memory_gb or activation_gb(encoder.device))
    return {
        "kind": dataset.kind,
        "training_examples": len(dataset.examples),
        **({"weak_pairs": len(weak)} if weak else {}),
        "documents": len(dataset.corpus),
        "test_queries": amounts.tests,
        "rejected_rows": len(rejected),
        "corpus_tokens": amounts.corpus,
        "training_tokens": amounts.training,
        "steps": amounts.steps,
        "encoding_tokens_per_s": round(model.pace.encoded_per_s),
        "training_tokens_per_s": round(model.pace.trained_per_s),
        "estimated_minutes": {name: round(value, 2) for name, value in minutes.items()}
        | {"total": round(sum(minutes.values()), 2)},
        "estimated_memory_gib": round(memory, 1),
    }


def _amounts(dataset: Dataset, weak: Sequence[Example], config: RunConfig, model: _Model) -> _Amounts:
    tokens, test, dev = model.tokens, _asked(dataset, "test"), _asked(dataset, "dev")
    corpus, documents = tokens(list(dataset.corpus.values())), list(dataset.corpus.values())
    steps, training = _steps(dataset.examples, config.train.epochs, config), _training_tokens(dataset, config, model)
    if weak:
        steps += _steps(weak, config.stages.weak_epochs, config)
        pairs = tokens([text for pair in weak for text in (pair.anchor, pair.positive)])
        training += round(config.stages.weak_epochs * pairs)
    fewest, most = DEV_DOCUMENTS
    wanted = max(fewest, min(most, round(DEV_DOCUMENTS_PER_EXAMPLE * len(dataset.examples) * config.train.epochs)))
    pool = min(len(documents), max(config.train.dev_documents or wanted, 2 * min(len(dev), MAX_QUERIES)))
    guards = guard_data(config.evaluate.guard, seed=config.seed, limit=config.limit) if config.evaluate.guard else []
    queries = list(dict.fromkeys(example.anchor for example in dataset.examples))
    return _Amounts(
        corpus=corpus,
        documents=len(documents),
        training=training,
        steps=steps,
        queries=len(queries),
        asked=tokens(queries),
        test=tokens(test),
        tests=len(dataset.qrels.get("test", {})) or len(dataset.pairs.get("test", [])),
        dev=tokens(dev if dataset.kind == "pairs" else dev[:MAX_QUERIES]),
        pool=round(corpus * pool / max(1, len(documents))),
        guards=sum(tokens([*guard.corpus.values(), *_asked(guard, "test")]) for guard in guards),
        topics=tokens(evenly(sides(dataset)["documents"], MAX_RELATED)),
    )


def _seconds(amounts: _Amounts, config: RunConfig, pace: Pace, *, mines: bool, stages: int) -> dict[str, float]:
    """Seconds of each part of the run. Where documents are not adapted, the base's vectors of them serve throughout."""
    adapts_documents = config.train.sides == "both"
    by_both = 1 / pace.encoded_per_s + 1 / pace.adapted_per_s
    mined = amounts.queries * (pace.mined_query_s + amounts.documents * pace.searched_s) * mines
    if mines and (config.mine.teacher is not None or stages > 1):  # its vectors are not the base's
        mined += amounts.corpus / (pace.teacher_per_s if stages == 1 else pace.adapted_per_s)
    again = amounts.steps // config.train.remine_steps if config.train.remine_steps else 0
    one_dev = (amounts.dev + amounts.pool * adapts_documents) / pace.adapted_per_s
    evaluations = stages * math.ceil(amounts.steps / stages / evaluation_steps(config.train, amounts.steps))
    evaluated = 0.0
    if amounts.tests:
        terms = TERM_TOKENS * config.domain.lexicon_size * bool(pace.vocabulary_s)
        evaluated = (amounts.test + amounts.guards + amounts.topics + terms) * by_both
        evaluated += amounts.corpus * adapts_documents / pace.adapted_per_s
        evaluated += 2 * (amounts.tests + config.domain.lexicon_size) * amounts.documents * pace.searched_s
        evaluated += amounts.documents * pace.counted_s + min(amounts.documents, MAX_TEXTS) * pace.vocabulary_s
    read = amounts.corpus + amounts.asked + amounts.test
    return {
        "prepare": read / pace.tokenised_per_s,
        "load": (LOADS + stages - 1) * pace.load_s,
        "encode": amounts.corpus / pace.encoded_per_s,
        "mine": mined + amounts.asked / pace.teacher_per_s * mines,
        "train": amounts.training / pace.trained_per_s
        + read / pace.tokenised_per_s
        + evaluations * one_dev
        + again * (mined + (amounts.asked + amounts.corpus * adapts_documents) / pace.adapted_per_s),
        "evaluate": evaluated,
    }


def _mines(dataset: Dataset, config: RunConfig) -> bool:
    return dataset.kind == "retrieval" and config.train.group_size > 1


def _asked(dataset: Dataset, split: Split) -> list[str]:
    """The queries of a split, or both sentences of its pairs."""
    pairs = [text for pair in dataset.pairs.get(split, []) for text in (pair.sentence1, pair.sentence2)]
    return pairs or [dataset.queries[query] for query in dataset.qrels.get(split, {})]


def _steps(examples: Sequence[Example], epochs: float, config: RunConfig) -> int:
    return math.ceil(epochs * math.ceil(len(examples) / config.train.batch_size))


def _weak(dataset: Dataset, config: RunConfig) -> list[Example]:
    """The first stage's training rows, where there are three stages."""
    if config.stages.recipe == "one-stage" or dataset.kind == "pairs":
        return []
    stages = config.stages
    pairs = weak_pairs(dataset, stages.weak_pairs, stages.weak_limit, config.seed)
    return [example for found in pairs.values() for example in found]


def _training_tokens(dataset: Dataset, config: RunConfig, model: _Model) -> int:
    """Tokens of all passes: anchors, positives, and as many negatives, of a document's mean length, as are drawn."""
    rows, corpus = dataset.examples, list(dataset.corpus.values())
    tokens = model.tokens([example.anchor for example in rows])
    if config.train.sides == "both" or dataset.kind == "pairs":
        tokens += model.tokens([example.positive for example in rows])
        if _mines(dataset, config):
            tokens += round(len(rows) * drawn_negatives(config) * model.tokens(corpus) / max(1, len(corpus)))
    return round(config.train.epochs * tokens)
