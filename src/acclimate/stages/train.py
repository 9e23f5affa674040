"""`train`: from examples to an adapter (or a fully trained model)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from acclimate import processes
from acclimate.configs import RunConfig, effective
from acclimate.core.lora import adapters_off, attach, lora_layers, trainable_parameters
from acclimate.data.dataset import EXAMPLES_FILE, Dataset, load_dataset, read_examples
from acclimate.engine.checkpoint import Progress
from acclimate.engine.dev import dev_set, retrieval_scores, similarity_scores
from acclimate.engine.fit import LossFn, Selection, fit
from acclimate.engine.recipes import contrastive, similarity
from acclimate.engine.retrieve import Vectors, encode_corpus
from acclimate.engine.run_folder import METRICS_FILE, cache_folder
from acclimate.engine.schedule import Schedule, auto_learning_rate
from acclimate.errors import DataError, UsageError
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
from acclimate.models.adapter import Adapter, adapter_folder, go_on_from, save_adapter
from acclimate.models.devices import choose_dtype
from acclimate.models.encoder import Encoder
from acclimate.models.full_model import save_full
from acclimate.models.loading import checkpoint_activations, compile_layers
from acclimate.models.sources import resolve_model
from acclimate.progress import say
from acclimate.types import Example

EVALUATIONS = 4
"""Evaluations on dev over a training, where `eval_steps` does not say."""
DEV_DOCUMENTS = (200, 2000)
"""Fewest and most documents in the pool that dev queries are ranked against, where `dev_documents` does not say."""
DEV_DOCUMENTS_PER_EXAMPLE = 0.2
"""An example trains on two documents and more, at thrice the cost of encoding; the pool is encoded four times."""
POSITIVE_LABEL = 0.5
"""Labelled pairs from this score on are positives for InfoNCE."""


def train(dataset: Path, negatives: Path | None, out: Path, config: RunConfig) -> dict[str, Any]:
    """Train an adapter, choosing its best moment on dev. Started again after a kill, it goes on where it was.

    Args:
        dataset: a folder that `prepare` wrote.
        negatives: a folder that `mine` wrote, if there is one.
        out: `RUN/adapter`; the progress is in `RUN/metrics.jsonl`, checkpoints are in `RUN/.work/adapter`.
        config: the whole run; its `train` section and the model count.

    Returns:
        what `out/report.json` holds.

    Raises:
        DataError: there are no training examples.
        UsageError: the loss does not fit the data, or a target is no linear layer.
        AcclimateError: the loss is not finite.
        Interrupted: ctrl-C; a second start goes on from the last checkpoint.
        StorageError: no space left; earlier artifacts are untouched.
    """
    started = time.monotonic()
    inputs = {"dataset": hash_folder(dataset), "model": resolve_model(config.model, pooling=config.pooling).sha256}
    if negatives is not None:
        inputs["negatives"] = hash_folder(negatives)
    if config.train.start_adapter and (start := adapter_folder(config.train.start_adapter)) is not None:
        inputs["start_adapter"] = hash_folder(start)
    settings = effective(config, "train", "objective")
    if processes.on_first(lambda: is_current(out, settings, inputs)):
        say(f"train: {out} is up to date")
        return read_json(out / REPORT_FILE)
    data = load_dataset(dataset)
    examples, loss = _examples(data, negatives, config)
    encoder, trainable = _trainable(config)
    course = _course(config, len(examples), encoder)
    cache = cache_folder(out.parent)
    selection = _selection(data, encoder, course, config, cache)
    state = fit(
        trainable,
        _loss_fn(loss, encoder, examples, data, course, config, cache),
        course,
        config.train,
        selection=selection,
        folder=work_folder(out) / "checkpoints",
        metrics=out.parent / METRICS_FILE,
        identity=hash_config({"config": settings, "inputs": inputs}),
    )
    _say_best(state, selection)
    report = _report(state, encoder, trainable, course, len(examples), loss)
    report["timings"] = {"train_s": round(time.monotonic() - started, 3)}

    def write() -> dict[str, Any]:
        with artifact(out, settings, inputs) as folder:
            _save(folder, encoder, report, config)
            write_json(folder / REPORT_FILE, report)
        return report

    return processes.on_first(write)


def _examples(data: Dataset, negatives: Path | None, config: RunConfig) -> tuple[list[Example], str]:
    """The training rows, and which loss they get."""
    examples = data.examples if negatives is None else read_examples(negatives / EXAMPLES_FILE)
    if not examples:
        raise DataError("the dataset has no training examples", fix="Prepare data with a train split.")
    labelled = any(example.label is not None for example in examples)
    loss = config.objective.loss
    if loss == "auto":
        loss = "cosine-mse" if labelled else "info-nce"
    if loss == "cosine-mse" and not labelled:
        raise UsageError("loss = 'cosine-mse' needs labels, which these examples lack", possible="auto, info-nce")
    if loss == "info-nce" and labelled:
        positive = [example for example in examples if example.label is None or example.label >= POSITIVE_LABEL]
        say(f"info-nce: {len(positive)} of {len(examples)} labelled pairs are positives (score >= {POSITIVE_LABEL})")
        if not positive:
            raise DataError("no labelled pair is a positive", fix="Train with --loss cosine-mse.")
        examples = positive
    return examples, loss


def _trainable(config: RunConfig) -> tuple[Encoder, dict[str, nn.Parameter]]:
    """The encoder with what trains in it, and says how much that is."""
    settings = config.train
    # Adam's small steps vanish in bf16 weights: trained weights are float32, and computed with in bf16 (`_autocast`).
    encoder = Encoder.from_config(replace(config, dtype="float32") if settings.full else config)
    encoder.require_one_transformer()
    if settings.full:
        trainable = dict(encoder.model.named_parameters())
        for parameter in trainable.values():
            parameter.requires_grad_(True)
    else:
        attach(
            encoder.model,
            settings.targets,
            rank=settings.rank,
            alpha=settings.alpha,
            dropout=settings.lora_dropout,
            generator=torch.Generator().manual_seed(config.seed),
        )
        if settings.start_adapter is not None:
            go_on_from(encoder, settings.start_adapter)
        trainable = trainable_parameters(encoder.model)
    if settings.gradient_checkpointing:
        checkpoint_activations(encoder.model)
    if settings.compile_layers:
        if encoder.device.type != "cuda":
            raise UsageError(f"--compile-layers on the device {encoder.device.type}: it is for CUDA only")
        compile_layers(encoder.model)
    count, total = _sizes(encoder, trainable)
    say(f"trainable parameters: {count:,} of {total:,} ({100 * count / total:.2f} %)")
    return encoder, trainable


def _course(config: RunConfig, examples: int, encoder: Encoder) -> Schedule:
    settings = config.train
    return Schedule(
        examples=examples,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=config.seed,
        learning_rate=settings.learning_rate or auto_learning_rate(encoder.parameters, settings.full),
        warmup_fraction=settings.warmup_fraction,
    )


def _loss_fn(
    loss: str,
    encoder: Encoder,
    examples: Sequence[Example],
    data: Dataset,
    course: Schedule,
    config: RunConfig,
    cache: Path,
) -> LossFn:
    bf16 = config.train.full and choose_dtype(config.dtype, encoder.device) == torch.bfloat16
    autocast = partial(torch.autocast, encoder.device.type, torch.bfloat16, enabled=bf16)
    if loss == "cosine-mse":
        return similarity(encoder, examples, course, config, autocast=autocast)
    fixed = _document_vectors(encoder, examples, data, cache) if config.train.sides == "query" else None
    return contrastive(
        encoder,
        examples,
        course,
        config,
        document_vectors=fixed,
        autocast=autocast,
    )


def _document_vectors(
    encoder: Encoder, examples: Sequence[Example], data: Dataset, cache: Path
) -> Mapping[str, np.ndarray]:
    """Text -> the base's vector, for every document of the training: those of the corpus are in the cache."""
    corpus_MD = _corpus_vectors(encoder, data, cache)
    vectors = dict(zip(data.corpus.values(), corpus_MD, strict=True))
    others = dict.fromkeys(text for e in examples for text in (e.positive, *e.negatives) if text not in vectors)
    if others:
        with adapters_off(encoder.model):
            vectors |= dict(zip(others, encode_corpus(encoder, list(others), cache), strict=True))
    return vectors


def _corpus_vectors(encoder: Encoder, data: Dataset, cache: Path) -> Vectors:
    with adapters_off(encoder.model):
        return encode_corpus(encoder, list(data.corpus.values()), cache, "encode documents (base)")


def _selection(data: Dataset, encoder: Encoder, course: Schedule, config: RunConfig, cache: Path) -> Selection | None:
    every = config.train.eval_steps or math.ceil(course.steps / EVALUATIONS)
    pairs, qrels = data.pairs.get("dev"), data.qrels.get("dev")
    if pairs:
        return Selection(evaluate=similarity_scores(encoder, pairs), metric="spearman", every=every)
    if not qrels:
        return None
    corpus_MD = _corpus_vectors(encoder, data, cache)
    documents = config.train.dev_documents or _dev_documents(course)
    with adapters_off(encoder.model):  # the pool is the base's choice, also where the training goes on from an adapter
        dev = dev_set(encoder, data.corpus, corpus_MD, data.queries, qrels, documents, config.seed)
    return Selection(evaluate=retrieval_scores(encoder, dev, config), metric="ndcg@10", every=every)


def _dev_documents(course: Schedule) -> int:
    """A pool whose repeated encoding costs about a tenth of the training, within bounds."""
    fewest, most = DEV_DOCUMENTS
    return max(fewest, min(most, round(DEV_DOCUMENTS_PER_EXAMPLE * course.examples * course.epochs)))


def _say_best(state: Progress, selection: Selection | None) -> None:
    if selection is None:
        say("the dataset has no dev split: the last step is kept, unseen")
    elif state.best_score is not None and state.base_score is not None and state.best_score <= state.base_score:
        say(
            f"no step of the training is better on dev than the base ({selection.metric} {state.base_score:.4f}, the "
            f"best trained one {state.best_score:.4f}): it is kept all the same, and evaluate will judge it"
        )


def _sizes(encoder: Encoder, trainable: Mapping[str, nn.Parameter]) -> tuple[int, int]:
    """Parameters that train, and all, adapter included."""
    return sum(parameter.numel() for parameter in trainable.values()), encoder.parameters


def _report(
    state: Progress, encoder: Encoder, trainable: Mapping[str, nn.Parameter], course: Schedule, examples: int, loss: str
) -> dict[str, Any]:
    count, total = _sizes(encoder, trainable)
    return {
        "train": {
            "loss": loss,
            "examples": examples,
            "tokens": state.tokens,
            "tokens_per_s": round(state.tokens / max(state.seconds, 1e-9), 1),
            "trainable": count,
            "total": total,
            "steps": state.step,
            "planned_steps": course.steps,
            "best_step": state.best_step,
            "base_score": state.base_score,
            "best_score": state.best_score,
            "learning_rate": course.learning_rate,
            "batch_size": course.batch_size,
            "step_s": round(state.seconds, 3),
        }
    }


def _save(folder: Path, encoder: Encoder, report: Mapping[str, Any], config: RunConfig) -> None:
    metrics = {name: report["train"][name] for name in ("steps", "best_step", "base_score", "best_score")}
    if config.train.full:
        save_full(folder, encoder, metrics)
        return
    modules = {}
    for name, layer in lora_layers(encoder.model).items():
        A_KrI, B_KOr = layer.weights()
        modules[name] = (A_KrI[0].detach().cpu(), B_KOr[0].detach().cpu())
    adapter = Adapter(
        base_id=encoder.source.id,
        base_sha256=encoder.source.sha256,
        rank=config.train.rank,
        alpha=float(config.train.rank if config.train.alpha is None else config.train.alpha),
        modules=modules,
        prompts=encoder.prompts,
        pooling=encoder.pooling,
        normalise=encoder.source.normalise,
        dim=encoder.dim,
        max_tokens=encoder.max_tokens,
        sides=config.train.sides,
        metrics=metrics,
    )
    save_adapter(folder, adapter, encoder.source)
