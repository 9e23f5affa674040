"""How fast a run's work goes on this machine: short pieces of that work, on texts of the run, timed.

What is timed is what the stages call, with the run's own model, batch size and lengths of texts. Nothing is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from acclimate.configs import RunConfig, with_overrides
from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly, sides
from acclimate.evaluation.domain import domain_data
from acclimate.evaluation.lexical import lexical_run
from acclimate.mining.mine import mine_negatives
from acclimate.mining.mining_input import mining_input
from acclimate.models.dtypes import DTYPES, named_format
from acclimate.models.encoder import Encoder
from acclimate.models.text_encoder import TextEncoder
from acclimate.retrieval.top_k import top_k
from acclimate.runs.resolve import base_of, load, load_reranker
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task
from acclimate.stages.train import trainable_encoder, training_format
from acclimate.training.scale import settle_scales
from acclimate.training.setup import mixed_precision
from acclimate.training.task_training import TaskLosses, TrainingTask, mixed_schedule
from acclimate.training.usable_rows import SCORES, rows_for
from acclimate.types import Example

STEPS = 2
"""Training steps that are taken: the first also pays for set-up, so the fastest counts."""
TEXTS = 256
"""Documents that are encoded."""
WORD_DOCUMENTS = 1_000
"""Documents whose words are counted."""
QUERIES = 64
"""Training queries that are mined for; with a reranker, a quarter of them."""
SEARCHED = 20_000
"""Vectors that are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds, and what is done in one."""

    load_s: float
    """Seconds of loading the model, as it is loaded again in one process."""
    tokenised_per_s: float
    """Tokens."""
    encoded_per_s: float
    """Tokens, by the base; tokenising them is counted in, here and below."""
    teacher_per_s: float
    """Tokens, by what ranks the documents in mining."""
    adapted_per_s: float
    """Tokens, by the base with an adapter in training."""
    trained_per_s: float
    """Tokens of training steps, each text of a step once."""
    mined_query_s: float
    """Seconds per training query, beside encoding it and searching; 0 where nothing is mined."""
    searched_s: float
    """Seconds per query and document."""
    counted_s: float
    """Seconds per document whose words BM25 counts and looks up."""
    vocabulary_s: float
    """Seconds per document that terms and topics are extracted from."""


def measure(encoder: Encoder, dataset: Dataset, config: RunConfig) -> Pace:
    """Time the pieces; takes as long as two training steps and some seconds.

    Args:
        encoder: the base.
        dataset: of the run.
        config: its settings.
    """
    retrieval = dataset.kind == "retrieval"
    mines = retrieval and config.train.group_size > 1 and bool(dataset.examples)
    texts = evenly(sides(dataset)["documents"], TEXTS)
    encoded = _encoding(encoder, texts)
    tokens = float(encoder.tokenise(texts, "document").lengths.sum())
    with TemporaryDirectory() as place:
        some = _some(dataset, config)
        mined, teacher = _mining(encoder, some, config, Path(place)) if mines else (0.0, encoded)
        load_s, trained, adapted = _training(some, config, Path(place), texts)
    counted, vocabulary = _words(dataset, config) if retrieval else (0.0, 0.0)
    return Pace(
        load_s=load_s,
        tokenised_per_s=tokens / _seconds(lambda: encoder.tokenise(texts, "document")),
        encoded_per_s=encoded,
        teacher_per_s=teacher,
        adapted_per_s=adapted,
        trained_per_s=trained,
        mined_query_s=mined,
        searched_s=_searching(encoder, len(dataset.corpus)) if retrieval else 0.0,
        counted_s=counted,
        vocabulary_s=vocabulary,
    )


def drawn_negatives(config: RunConfig) -> int:
    """How many hard negatives an example has in a step."""
    return min(config.train.group_size - 1, config.mine.num_negatives)


def _some(dataset: Dataset, config: RunConfig) -> Dataset:
    """Rows for some training steps, with documents in the place of the negatives that mining will find."""
    rows = evenly(dataset.examples, STEPS * config.train.batch_size)
    if dataset.kind == "pairs" or not rows:
        return replace(dataset, examples=rows)
    count = drawn_negatives(config)
    others = evenly(list(dataset.corpus), max(TEXTS, len(rows) * count))
    corpus = {key: dataset.corpus[key] for key in others}
    texts = list(corpus.values())
    examples = []
    for number, row in enumerate(rows):
        drawn = tuple(texts[(number * count + place) % len(texts)] for place in range(count))
        scores = (1.0, *(0.0 for _ in drawn)) if config.objective.loss in SCORES else None
        examples.append(Example(row.anchor, row.positive, drawn, scores=scores))
    return Dataset("retrieval", corpus=corpus, queries=dataset.queries, examples=examples)


def _encoding(encoder: TextEncoder, texts: list[str]) -> float:
    encoder.encode(texts[:16])  # the first call pays for set-up
    tokens = float(encoder.tokenise(texts, "document").lengths.sum())
    return tokens / _seconds(lambda: encoder.encode(texts))


def _training(some: Dataset, config: RunConfig, place: Path, texts: list[str]) -> tuple[float, float, float]:
    """Seconds of loading; tokens per second of training, and of encoding with what is trained."""
    config = replace(config, dtype=training_format(config, place / "checkpoints", ""))
    started = time.perf_counter()
    encoder, trainable = trainable_encoder(config)
    load_s = time.perf_counter() - started
    trained = 0.0
    for tokens, seconds in _steps(encoder, trainable, some, config, place):
        trained = max(trained, tokens / seconds)
    encoder.model.eval()
    return load_s, trained, _encoding(encoder, texts)


def _steps(
    encoder: Encoder, trainable: dict[str, Any], some: Dataset, config: RunConfig, place: Path
) -> Iterator[tuple[int, float]]:
    """Tokens and seconds of training steps."""
    if not some.examples:
        return
    rows, loss = rows_for(some.examples, config.objective, config.train)
    task = Task(None, with_overrides(config, {"loss": loss}), RunFolder(place), place, place, mined=False)
    part = TrainingTask(task, some, rows, loss)
    settle_scales([part], encoder, place / "scale.json", "")
    course = mixed_schedule([part], replace(config.train, epochs=float(STEPS)), config.seed, learning_rate=0.0)
    autocast = mixed_precision(encoder.device, DTYPES[named_format(config.dtype)], encoder.dtype)
    losses = TaskLosses([part], encoder, course, autocast, trainable)
    for step in range(min(STEPS, course.steps)):
        started = time.perf_counter()
        result = losses(step)
        float(result.loss)  # waits for a GPU
        yield result.tokens, time.perf_counter() - started


def _mining(encoder: Encoder, some: Dataset, config: RunConfig, place: Path) -> tuple[float, float]:
    """Seconds per query of all but encoding; tokens per second of the teacher."""
    name, reranker = config.mine.teacher, None
    teacher = encoder if name is None else load(name, base=base_of(name, config.model), **config.machine)
    if config.mine.reranker is not None:
        reranker = load_reranker(config.mine.reranker, config.rerank, device=config.device, dtype=config.reranker_dtype)
    rows = [replace(row, negatives=(), scores=None) for row in some.examples]
    few = replace(some, examples=evenly(rows, QUERIES if reranker is None else QUERIES // 4))
    source = mining_input(few)
    rate = _encoding(teacher, evenly(source.documents, TEXTS))

    def mine() -> None:
        for _ in mine_negatives(source, teacher, config.mine, config.seed, reranker=reranker, cache=place):
            pass

    mine()  # encodes, into the cache
    return _seconds(mine) / len(source.positives), rate


def _words(dataset: Dataset, config: RunConfig) -> tuple[float, float]:
    """Seconds per document of BM25, and of the domain's vocabulary."""
    corpus = {key: dataset.corpus[key] for key in evenly(list(dataset.corpus), WORD_DOCUMENTS)}
    queries = {key: dataset.queries[key] for key in evenly(list(dataset.queries), WORD_DOCUMENTS)}
    qrels = {
        split: {query: grades for query, grades in judged.items() if query in queries}
        for split, judged in dataset.qrels.items()
    }
    few = Dataset("retrieval", corpus=corpus, queries=queries, qrels=qrels)
    test = {query: queries[query] for query in qrels.get("test", {})}
    counted = _seconds(lambda: lexical_run(few, test, config.evaluate.top_k)) if test else 0.0
    vocabulary = _seconds(lambda: domain_data(few, config.domain, config.evaluate, config.seed))
    return counted / len(corpus), vocabulary / len(corpus)


def _searching(encoder: Encoder, documents: int) -> float:
    generator, count = np.random.default_rng(0), max(1, min(documents, SEARCHED))
    query_ND, document_MD = (generator.standard_normal((size, encoder.use.dim), np.float32) for size in (TEXTS, count))
    return _seconds(lambda: top_k(query_ND, document_MD, min(100, count), device=encoder.device)) / (TEXTS * count)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
