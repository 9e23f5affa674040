"""`train-reranker`: from examples with hard negatives to a reranker, through the same loop as an embedder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from acclimate.configs import RunConfig, used
from acclimate.core.lora import trainable_parameters
from acclimate.counting import counted
from acclimate.data.dataset import EXAMPLES_FILE, Dataset, read_examples
from acclimate.errors import DataError, UsageError
from acclimate.evaluation.reranking import reranking_scores, sample_queries
from acclimate.files import hash_config, hash_folder
from acclimate.formats.reranker_folder import RerankerSource
from acclimate.formats.trained_on import TrainedOn, write_trained_on
from acclimate.models.devices import choose_device
from acclimate.models.dtypes import DTYPES, Format, Use
from acclimate.models.loading import transformer_size
from acclimate.models.reranker import Reranker
from acclimate.models.reranker_saving import save_reranker, save_reranker_adapter
from acclimate.ownership import check_replaceable
from acclimate.progress import say
from acclimate.retrieval.own_documents import own_documents
from acclimate.retrieval.rank import rank
from acclimate.runs.opening import load_retriever, open_retrieval_dataset, retriever_hash
from acclimate.runs.records import not_metrics
from acclimate.runs.resolve import reranker_source
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.trained_on import miners_trained_on, reranker_trained_on, told_by, trained_on, trained_on_input
from acclimate.training.checkpoint import Progress
from acclimate.training.fit import Selection, fit, training_numbers
from acclimate.training.reports import RerankerTraining, RerankerTrainReport
from acclimate.training.rerank_objective import DISTILLATION, reranking
from acclimate.training.schedule import HIGHEST_RERANKER_RATE, TaskSchedule, auto_learning_rate
from acclimate.training.setup import (
    EVALUATIONS,
    NO_DEV,
    attach_lora,
    checkpoints,
    evaluation_steps,
    lora_alpha,
    mixed_precision,
    start_training,
    training_dtype,
)
from acclimate.types import Example

DEV_DEPTH = 30
"""Retrieved documents per dev query that are put in order while the reranker trains."""
DEV_QUERIES = (50, 500)
"""Fewest and most dev queries: as many as cost a tenth of the training."""
DEV_SHARE = 0.1


def train_reranker(
    dataset: Path, negatives: Path | None, adapter: Path, base: str, out: Path, config: RunConfig
) -> RerankerTrainReport:
    """Train a reranker, choosing its best moment on dev. Started again after a kill, it goes on where it was.

    Args:
        dataset: a folder that `prepare` wrote.
        negatives: a folder that `mine` wrote, if there is one; else the dataset's own negatives are taken.
        adapter: `RUN/adapter`; if it is there, it retrieves the dev queries' documents.
        base: what to start from: a reranker, or an embedding model of the BERT family, which gets a new head.
        out: `RUN/reranker`; the progress is in `RUN/reranker_metrics.jsonl`, checkpoints are in `RUN/.work/reranker`.
        config: the whole run; what counts of it is listed in `configs/commands.py`.

    Returns:
        what `out/report.json` holds.

    Raises:
        DataError: no example has a negative.
        UsageError: the dataset holds labelled pairs, or the base is itself an adapter or an export.
        ModelError: the base cannot be used.
        AcclimateError: the loss is not finite.
        Interrupted: ctrl-C; a second start goes on from the last checkpoint.
    """
    data, rows = open_retrieval_dataset(dataset), negatives or dataset
    if reranker_source(base).graph is not None:
        raise UsageError(f"{base} is an export, which has no weights to train", fix="Name what it was exported from.")
    inputs = {
        "dataset": hash_folder(dataset),
        "reranker": reranker_source(base).fingerprint,
        "examples": hash_folder(rows),
        "retriever": retriever_hash(adapter, config.rerank.retriever, config.model, pooling=config.pooling),
    }
    inherited = trained_on([base]) | reranker_trained_on(base)
    if negatives is not None:
        inherited |= miners_trained_on(negatives)
    inputs |= trained_on_input(inherited)
    settings = {"base": base, **used(config, "train-reranker")}
    identity = hash_config({"config": settings, "inputs": inputs})

    def make() -> Work[RerankerTrainReport]:
        examples = _examples(read_examples(rows / EXAMPLES_FILE), config.rerank.rerank_loss)
        told = told_by(examples, data) | inherited
        return _train(data, examples, told, adapter, base, out, config, identity)

    return step("train reranker", out, settings, inputs, make, seconds="train_reranker_s", reads=[dataset, rows, base])


def _train(
    data: Dataset,
    examples: list[Example],
    told: TrainedOn,
    adapter: Path,
    base: str,
    out: Path,
    config: RunConfig,
    identity: str,
) -> Work[RerankerTrainReport]:
    run = RunFolder(out.parent)
    check_replaceable(run.reranker_metrics, not_metrics)
    dtype = _dtype(base, config, checkpoints(out), identity)
    reranker, full = _load(base, dtype, config)
    trainable = _trainable(reranker, full, config)
    course = _course(config, len(examples), reranker, full)
    selection = _selection(data, examples, adapter, reranker, course, config, run.cache)
    weights_dtype = next(reranker.model.parameters()).dtype
    autocast = mixed_precision(reranker.device, DTYPES[dtype], weights_dtype)
    state = fit(
        trainable,
        reranking(reranker, examples, course, config.rerank, config.objective, config.train, autocast=autocast),
        course,
        dataclasses.replace(config.train, epochs=course.epochs, batch_size=course.batch_size),
        selection=selection,
        folder=checkpoints(out),
        metrics=run.reranker_metrics,
        identity=identity,
        dtype=dtype,
    )

    def write(folder: Path) -> RerankerTrainReport:
        training = _report(state, reranker, trainable, course, len(examples), config)
        _save(folder, reranker, full, training, config)
        write_trained_on(folder, told)
        return {"train": training}

    return Work(write)


def _examples(rows: list[Example], loss: str) -> list[Example]:
    """The rows that a reranker can learn from: those with negatives."""
    if any(row.label is not None for row in rows):
        raise UsageError("these rows are labelled pairs", fix="Mine negatives as n-tuples: acclimate mine RUN")
    usable = [row for row in rows if row.negatives]
    if not usable:
        raise DataError("no training example has a negative", fix="Mine some first: acclimate mine RUN")
    if loss in DISTILLATION and any(row.scores is None for row in usable):
        raise DataError(
            f"{loss} needs a teacher's scores, which these rows lack", fix="acclimate mine RUN writes them."
        )
    if len(usable) < len(rows):
        say(f"{len(rows) - len(usable)} of {len(rows)} examples have no negative and are left out")
    return usable


def _dtype(base: str, config: RunConfig, checkpoints: Path, identity: str) -> Format:
    """The number format that the training computes in."""
    source = reranker_source(base)
    use: Use = "training" if _trains_lora_only(source, config) else "mixed precision"
    return training_dtype(config.dtype, choose_device(config.device), source.folder, use, checkpoints, identity)


def _trains_all(source: RerankerSource, config: RunConfig) -> bool:
    return source.headless if config.rerank.rerank_full is None else config.rerank.rerank_full


def _trains_lora_only(source: RerankerSource, config: RunConfig) -> bool:
    """Whether no weight of the model itself trains: of a cross-encoder the head does, beside LoRA."""
    return source.kind == "yes-no" and not _trains_all(source, config)


def _load(base: str, dtype: Format, config: RunConfig) -> tuple[Reranker, bool]:
    """The base, and whether all of it trains."""
    source = reranker_source(base)
    if source.adapter is not None:
        raise UsageError(f"{base} is an adapter for {source.id}", fix=f"Start from its base: {source.id}")
    reranker = Reranker.open(
        source,
        instruction=config.rerank.rerank_instruction,
        max_tokens=config.rerank.pair_tokens,
        head_seed=config.seed,
        device=config.device,
        # Adam's small steps vanish in bf16 weights: what trains is float32, and computed with in bf16
        # (`mixed_precision`). A LoRA's matrices always are.
        dtype=dtype if _trains_lora_only(source, config) else "float32",
    )
    if source.headless:
        say(f"{base} has no classification head: it gets a new one, drawn from the seed")
    return reranker, _trains_all(source, config)


def _trainable(reranker: Reranker, full: bool, config: RunConfig) -> dict[str, nn.Parameter]:
    """What trains, and says how much that is."""
    model: Any = reranker.model
    if full:
        trainable = dict(model.named_parameters())
    else:
        attach_lora(model.base_model, config.train, config.seed)
        trainable = trainable_parameters(model) | reranker.kind.head(model)
    start_training(model, trainable, config.train, parameters=_parameters(reranker), packed=False)
    return trainable


def _course(config: RunConfig, examples: int, reranker: Reranker, full: bool) -> TaskSchedule:
    size = transformer_size(reranker.model)
    rate = config.rerank.rerank_learning_rate or auto_learning_rate(*size, full=full, highest=HIGHEST_RERANKER_RATE)
    return TaskSchedule(
        examples=examples,
        batch_size=config.rerank.rerank_batch_size,
        epochs=config.rerank.rerank_epochs,
        seed=config.seed,
        learning_rate=rate,
        warmup_fraction=config.train.warmup_fraction,
    )


def _selection(
    data: Dataset,
    examples: list[Example],
    adapter: Path,
    reranker: Reranker,
    course: TaskSchedule,
    config: RunConfig,
    cache: Path,
) -> Selection | None:
    """The first documents that the run's embedder retrieves for some dev queries; at step 0 in the embedder's order."""
    every = evaluation_steps(config.train, course.steps)
    trained_pairs = len(examples) * config.rerank.rerank_group_size * course.epochs
    fewest, most = DEV_QUERIES
    wanted = round(DEV_SHARE * trained_pairs / (DEV_DEPTH * EVALUATIONS))
    qrels = sample_queries(data.qrels.get("dev", {}), max(fewest, min(most, wanted)), config.seed)
    if not qrels:
        say(NO_DEV)
        return None
    retriever, name = load_retriever(adapter, config.rerank.retriever, config.model, **config.loading)
    queries = {query: data.queries[query] for query in qrels}
    own = own_documents(queries, data.corpus, qrels)
    run = rank(retriever, queries, data.corpus, DEV_DEPTH, own=own, cache=cache)
    asked = f"{counted(len(queries), 'queries')}, {DEV_DEPTH} documents each"
    say(f"dev: {asked}, retrieved by the {name} model; step 0 is its order")
    evaluate = reranking_scores(reranker, run, queries, data.corpus, qrels)
    return Selection(evaluate=evaluate, metric="ndcg@10", every=every)


def _parameters(reranker: Reranker) -> int:
    """All of them, adapter included."""
    return sum(parameter.numel() for parameter in reranker.model.parameters())


def _report(
    state: Progress,
    reranker: Reranker,
    trainable: Mapping[str, nn.Parameter],
    course: TaskSchedule,
    examples: int,
    config: RunConfig,
) -> RerankerTraining:
    numbers = training_numbers(state, course, trainable, _parameters(reranker))
    return {
        "base": reranker.source.id,
        "loss": config.rerank.rerank_loss,
        "examples": examples,
        "batch_size": course.batch_size,
        **numbers,
        "retrieval_score": state.base_score,
    }


def _save(folder: Path, reranker: Reranker, full: bool, training: RerankerTraining, config: RunConfig) -> None:
    """An adapter where the base has all that it needs; else, also with a new head, the whole model."""
    metrics = {name: training[name] for name in ("steps", "best_step", "retrieval_score", "best_score")}
    if full or reranker.source.headless:
        save_reranker(folder, reranker, metrics)
        return
    save_reranker_adapter(folder, reranker, config.train.rank, lora_alpha(config.train), metrics)
