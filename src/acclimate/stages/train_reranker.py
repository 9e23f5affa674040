"""`train-reranker`: from examples with hard negatives to a reranker, through the same loop as an embedder."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from acclimate import processes
from acclimate.configs import RunConfig, used
from acclimate.core.lora import attach, trainable_parameters
from acclimate.data.dataset import EXAMPLES_FILE, Dataset, read_examples
from acclimate.errors import DataError, UsageError
from acclimate.evaluation.reranking import reranking_scores, sample_queries
from acclimate.files import (
    REPORT_FILE,
    artifact,
    hash_config,
    hash_folder,
    is_current,
    read_json,
    work_folder,
    write_json,
)
from acclimate.models.devices import choose_dtype
from acclimate.models.loading import checkpoint_activations
from acclimate.models.reranker import Reranker
from acclimate.models.reranker_saving import save_reranker, save_reranker_adapter
from acclimate.progress import say
from acclimate.retrieval.rank import rank
from acclimate.runs.resolve import RUN_RERANKER, reranker_source
from acclimate.runs.run_folder import cache_folder, load_retriever, open_retrieval_dataset, retriever_hash
from acclimate.runs.tasks import one_task
from acclimate.training.checkpoint import Progress
from acclimate.training.fit import Selection, fit, training_numbers
from acclimate.training.rerank_objective import DISTILLATION, reranking
from acclimate.training.schedule import HIGHEST_RERANKER_RATE, TaskSchedule, auto_learning_rate
from acclimate.types import Example

METRICS_FILE = "reranker_metrics.jsonl"
EVALUATIONS = 4
"""Evaluations on dev over a training, where `eval_steps` does not say."""
DEV_DEPTH = 30
"""Retrieved documents per dev query that are put in order while the reranker trains."""
DEV_QUERIES = (50, 500)
"""Fewest and most dev queries: as many as cost a tenth of the training."""
DEV_SHARE = 0.1


def train_reranker(run: Path, base: str, config: RunConfig) -> dict[str, Any]:
    """Train a reranker, choosing its best moment on dev. Started again after a kill, it goes on where it was.

    Args:
        run: holds a dataset, negatives (else the dataset's own ones are taken), and maybe an adapter, which then
            retrieves the dev queries' documents. `RUN/reranker` is written; the progress is in
            `RUN/reranker_metrics.jsonl`, checkpoints are in `RUN/.work/reranker`.
        base: what to start from: a reranker, or an embedding model of the BERT family, which gets a new head.
        config: the whole run; what counts of it is listed in `configs/commands.py`.

    Returns:
        what `RUN/reranker/report.json` holds.

    Raises:
        DataError: no example has a negative.
        UsageError: the dataset holds labelled pairs, or the base is itself an adapter.
        ModelError: the base cannot be used.
        AcclimateError: the loss is not finite.
        Interrupted: ctrl-C; a second start goes on from the last checkpoint.
    """
    started = time.monotonic()
    task = one_task(run, config)
    config, dataset, negatives = task.config, task.dataset, task.negatives
    adapter, out = run / "adapter", task.folder / RUN_RERANKER
    data = open_retrieval_dataset(dataset)
    found = negatives if (negatives / EXAMPLES_FILE).is_file() else dataset
    inputs = {"dataset": hash_folder(dataset), "reranker": reranker_source(base).fingerprint}
    inputs |= {"examples": hash_folder(found), "retriever": retriever_hash(adapter, config)}
    settings = {"base": base, **used(config, "train-reranker")}
    if processes.on_main(lambda: is_current(out, settings, inputs)):
        say(f"train: {out} is up to date")
        return read_json(out / REPORT_FILE)
    examples = _examples(read_examples(found / EXAMPLES_FILE), config.rerank.rerank_loss)
    reranker, full = _load(base, config)
    trainable = _trainable(reranker, full, config)
    course = _course(config, len(examples), reranker, full)
    selection = _selection(data, examples, adapter, reranker, course, config, cache_folder(task.folder))
    state = fit(
        trainable,
        reranking(reranker, examples, course, config, autocast=_autocast(reranker, config)),
        course,
        dataclasses.replace(config.train, epochs=course.epochs, batch_size=course.batch_size),
        selection=selection,
        folder=work_folder(out) / "checkpoints",
        metrics=task.folder / METRICS_FILE,
        identity=hash_config({"config": settings, "inputs": inputs}),
    )
    report = _report(state, reranker, trainable, course, len(examples), config)
    report["timings"] = {"train_reranker_s": round(time.monotonic() - started, 3)}

    def write() -> dict[str, Any]:
        with artifact(out, settings, inputs) as folder:
            _save(folder, reranker, full, report, config)
            write_json(folder / REPORT_FILE, report)
        return report

    return processes.on_main(write)


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


def _load(base: str, config: RunConfig) -> tuple[Reranker, bool]:
    """The base, and whether all of it trains."""
    source = reranker_source(base)
    if source.adapter is not None:
        raise UsageError(f"{base} is an adapter for {source.id}", fix=f"Start from its base: {source.id}")
    full = source.headless if config.rerank.rerank_full is None else config.rerank.rerank_full
    # Adam's small steps vanish in bf16 weights: what trains is float32, and computed with in bf16 (`_autocast`).
    # A LoRA's matrices always are; a cross-encoder's head trains beside them.
    keeps_dtype = source.kind == "yes-no" and not full
    reranker = Reranker.open(
        source,
        instruction=config.rerank.rerank_instruction,
        max_tokens=config.rerank.pair_tokens,
        head_seed=config.seed,
        device=config.device,
        dtype=config.dtype if keeps_dtype else "float32",
    )
    if source.headless:
        say(f"{base} has no classification head: it gets a new one, drawn from the seed")
    return reranker, full


def _autocast(reranker: Reranker, config: RunConfig) -> Any:
    parameter = next(reranker.model.parameters())
    bf16 = choose_dtype(config.dtype, reranker.device) == torch.bfloat16 and parameter.dtype == torch.float32
    return partial(torch.autocast, reranker.device.type, torch.bfloat16, enabled=bf16)


def _trainable(reranker: Reranker, full: bool, config: RunConfig) -> dict[str, nn.Parameter]:
    """What trains, and says how much that is."""
    model: Any = reranker.model
    if full:
        trainable = dict(model.named_parameters())
    else:
        settings = config.train
        attach(
            model.base_model,
            settings.targets,
            rank=settings.rank,
            alpha=settings.alpha,
            dropout=settings.lora_dropout,
            generator=torch.Generator().manual_seed(config.seed),
        )
        trainable = trainable_parameters(model) | reranker.kind.head(model)
    for parameter in trainable.values():
        parameter.requires_grad_(True)
    if config.train.gradient_checkpointing:
        checkpoint_activations(model)
    count, total = sum(parameter.numel() for parameter in trainable.values()), _parameters(reranker)
    say(f"trainable parameters: {count:,} of {total:,} ({100 * count / total:.2f} %)")
    return trainable


def _course(config: RunConfig, examples: int, reranker: Reranker, full: bool) -> TaskSchedule:
    rate = config.rerank.rerank_learning_rate or auto_learning_rate(_parameters(reranker), full, HIGHEST_RERANKER_RATE)
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
    every = config.train.eval_steps or math.ceil(course.steps / EVALUATIONS)
    trained_pairs = len(examples) * config.rerank.rerank_group_size * course.epochs
    fewest, most = DEV_QUERIES
    wanted = round(DEV_SHARE * trained_pairs / (DEV_DEPTH * EVALUATIONS))
    qrels = sample_queries(data.qrels.get("dev", {}), max(fewest, min(most, wanted)), config.seed)
    if not qrels:
        say("the dataset has no dev split: the last step is kept, unseen")
        return None
    retriever, name = load_retriever(adapter, config)
    queries = {query: data.queries[query] for query in qrels}
    run = rank(retriever, queries, data.corpus, DEV_DEPTH, cache=cache)
    say(f"dev: {len(queries)} queries, {DEV_DEPTH} documents each, retrieved by the {name} model; step 0 is its order")
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
) -> dict[str, Any]:
    numbers = training_numbers(state, course, trainable, _parameters(reranker))
    return {
        "train": {
            "base": reranker.source.id,
            "loss": config.rerank.rerank_loss,
            "examples": examples,
            "batch_size": course.batch_size,
            **numbers,
            "retrieval_score": state.base_score,
        }
    }


def _save(folder: Path, reranker: Reranker, full: bool, report: Mapping[str, Any], config: RunConfig) -> None:
    """An adapter where the base has all that it needs; else, also with a new head, the whole model."""
    metrics = {name: report["train"][name] for name in ("steps", "best_step", "retrieval_score", "best_score")}
    if full or reranker.source.headless:
        save_reranker(folder, reranker, metrics)
        return
    alpha = float(config.train.rank if config.train.alpha is None else config.train.alpha)
    save_reranker_adapter(folder, reranker, config.train.rank, alpha, metrics)
