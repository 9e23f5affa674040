"""`train`: from examples to an adapter (or a fully trained model)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from acclimate import processes
from acclimate.configs import RunConfig, effective
from acclimate.core.lora import adapters_off, finished_weights, trainable_parameters
from acclimate.core.sharding import whole_tensors
from acclimate.errors import ModelError
from acclimate.files import hash_config, hash_folder, work_folder
from acclimate.formats.full_model import save_weights
from acclimate.formats.query_domain import QueryDomain
from acclimate.formats.sources import resolve_model
from acclimate.formats.trained_on import TrainedOn, write_trained_on
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.devices import choose_device
from acclimate.models.dtypes import DTYPES, Format, Use
from acclimate.models.encoder import Encoder
from acclimate.ownership import check_replaceable
from acclimate.progress import say
from acclimate.retrieval.centroids import query_domain
from acclimate.runs.guards import guard_hashes
from acclimate.runs.records import not_metrics
from acclimate.runs.resolve import adapter_folder, refuse_map
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.tasks import Task
from acclimate.runs.trained_on import miners_trained_on, reranker_trained_on, trained_on, trained_on_input
from acclimate.training.checkpoint import Progress
from acclimate.training.fit import Selection, fit, training_numbers
from acclimate.training.references import reference_hashes
from acclimate.training.remine import Remining
from acclimate.training.reports import EncoderTraining, Scale, TrainReport
from acclimate.training.scale import settle_scales
from acclimate.training.schedule import MixedSchedule, auto_learning_rate
from acclimate.training.setup import (
    NO_DEV,
    attach_lora,
    checkpoints,
    lora_alpha,
    mixed_precision,
    start_training,
    training_dtype,
)
from acclimate.training.task_training import (
    TaskLosses,
    TrainingTask,
    dev_selection,
    hard_negative_share,
    mixed_schedule,
    read_task,
    task_report,
)
from acclimate.training.temperature import learned_temperatures


def train(dataset: Path, negatives: Path | None, out: Path, config: RunConfig) -> TrainReport:
    """Train an adapter, choosing its best moment on dev. Started again after a kill, it goes on where it was.

    Args:
        dataset: a folder that `prepare` wrote.
        negatives: a folder that `mine` wrote, if there is one.
        out: `RUN/adapter`, which keeps its versions in `RUN/adapters` (another name is a plain folder); the progress
            is in `RUN/metrics.jsonl`, checkpoints are in `RUN/.work/adapter`.
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
    task = Task(None, config, RunFolder(out.parent), dataset, negatives or dataset, mined=negatives is not None)
    return train_tasks([task], out, config)


def train_tasks(tasks: Sequence[Task], out: Path, config: RunConfig) -> TrainReport:
    """Train one adapter on several tasks, each with its own data, prompts, loss and weight; otherwise as `train`.

    Args:
        tasks: with the folders that `prepare` and `mine` wrote; in one adapter their order counts.
        out: as for `train`.
        config: the whole run, with all its datasets.
    """
    config = config if len(tasks) > 1 else tasks[0].config
    inputs = _inputs(tasks, config)
    adaptive = any(task.config.objective.temperature_kind == "adaptive" for task in tasks)
    more = ("mine",) * bool(config.train.remine_steps) + ("domain",) * adaptive
    settings = effective(config, "train", "objective", *more)
    identity = hash_config({"config": settings, "inputs": inputs})
    versioned = RunFolder(out.parent).adapter == out
    return step(
        "train",
        out,
        settings,
        inputs,
        lambda: _train(tasks, out, config, identity),
        seconds="train_s",
        versioned=versioned,
    )


def _train(tasks: Sequence[Task], out: Path, config: RunConfig, identity: str) -> Work[TrainReport]:
    parts = [read_task(task) for task in tasks]
    dtype = training_format(config, checkpoints(out), identity)
    encoder, trainable = trainable_encoder(replace(config, dtype=dtype))
    scales = settle_scales(parts, encoder, work_folder(out) / "scale.json", identity)
    course = mixed_schedule(parts, config.train, config.seed, _learning_rate(config, encoder))
    selection = dev_selection(parts, encoder, course, config.train)
    metrics = RunFolder(out.parent).metrics
    check_replaceable(metrics, not_metrics)
    autocast = mixed_precision(encoder.device, DTYPES[dtype], encoder.dtype)
    losses = TaskLosses(parts, encoder, course, autocast, trainable)
    mined = work_folder(out) / "mined"
    remining = Remining(losses, encoder, config.train, mined, identity) if config.train.remine_steps else None
    state = fit(
        trainable,
        losses,
        course,
        config.train,
        selection=selection,
        folder=checkpoints(out),
        metrics=metrics,
        identity=identity,
        dtype=dtype,
        before_step=remining,
    )
    _say_best(state, selection)
    domain = None if config.train.full else _domain(encoder, parts)
    weights = whole_tensors(encoder.model.state_dict(), keep=processes.is_main()) if config.train.full else {}

    def write(folder: Path) -> TrainReport:
        training = _report(state, encoder, trainable, course, parts, scales, metrics)
        if remining is not None:
            training["remined"] = remining.report()
        if any(task.config.objective.retain_data for task in tasks):
            training["retained_excluded"] = losses.retained_excluded
        _save(folder, encoder, weights, domain, training, config)
        write_trained_on(folder, losses.told | _inherited(tasks, config))
        return {"train": training}

    return Work(write)


def _inherited(tasks: Sequence[Task], config: RunConfig) -> TrainedOn:
    """What the models were trained on whose training becomes part of this one: what it starts from, what teaches it,
    and what chose its negatives."""
    names = [config.base_model, config.train.start_adapter]
    found = TrainedOn()
    for task in tasks:
        names += [task.config.objective.guide, task.config.objective.embedding_teacher]
        if task.mined:
            found |= miners_trained_on(task.negatives)
        if config.train.remine_steps:
            found |= reranker_trained_on(task.config.mine.reranker)
    return found | trained_on(names)


def _inputs(tasks: Sequence[Task], config: RunConfig) -> dict[str, str]:
    inputs = {"model": resolve_model(config.base_model, pooling=config.pooling).fingerprint}
    for task in tasks:
        inputs[f"{task.label}dataset"] = hash_folder(task.dataset)
        if task.mined:
            inputs[f"{task.label}negatives"] = hash_folder(task.negatives)
        own = task.config
        hashes = reference_hashes(own.objective, own.domain, own.evaluate.guard, model=own.model)
        inputs |= {f"{task.label}{name}": value for name, value in hashes.items()}
        if task.config.objective.retain_data:
            inputs |= guard_hashes(config.evaluate.guard)  # what tests them is not retained
    if config.train.start_adapter:
        inputs["start_adapter"] = load_adapter(_start_folder(config.train.start_adapter)).fingerprint
    return inputs | trained_on_input(_inherited(tasks, config))


def training_format(config: RunConfig, checkpoints: Path, identity: str) -> Format:
    """Name the number format that the training computes in; see `training_dtype`."""
    folder = resolve_model(config.base_model, pooling=config.pooling).files.transformer
    use: Use = "mixed precision" if config.train.full else "training"
    return training_dtype(config.dtype, choose_device(config.device), folder, use, checkpoints, identity)


def trainable_encoder(config: RunConfig) -> tuple[Encoder, dict[str, nn.Parameter]]:
    """Load the encoder with what trains in it, and say how much that is."""
    settings = config.train
    # Trained weights are float32, and computed with in bf16: see `mixed_precision`.
    encoder = _base(replace(config, dtype="float32") if settings.full else config)
    encoder.require_one_transformer()
    if settings.full:
        trainable = dict(encoder.model.named_parameters())
    else:
        start = None if settings.start_adapter is None else _start_adapter(settings.start_adapter, encoder)
        attach_lora(encoder.model, settings, config.seed, start)
        trainable = trainable_parameters(encoder.model)
    start_training(encoder.model, trainable, settings, parameters=encoder.parameters, packed=encoder.packed)
    return encoder, trainable


def _start_adapter(name: str, encoder: Encoder) -> Adapter:
    """The adapter that training goes on from, made for the same base."""
    adapter = load_adapter(_start_folder(name))
    adapter.check_base(encoder.source)
    return adapter


def _start_folder(name: str) -> Path:
    refuse_map(name, "trained on")
    folder = adapter_folder(name)
    if folder is None:
        raise ModelError(f"start_adapter: {name} holds no adapter", fix="Give a run, or its adapter folder.")
    return folder


def _base(config: RunConfig) -> Encoder:
    """The model, with its weights marked where they train, and spread over the processes if that is asked for."""
    device = choose_device(config.device)
    sharded = config.train.shard == "fsdp" and processes.count() > 1
    if sharded:  # no device ever holds all of it
        encoder = Encoder.load(config.base_model, **replace(config, device="cpu").loading)
    else:
        encoder = Encoder.load(config.base_model, **config.loading)
    encoder.model.requires_grad_(config.train.full)
    if sharded:
        encoder.shard(device)
    return encoder


def _learning_rate(config: RunConfig, encoder: Encoder) -> float:
    return config.train.learning_rate or auto_learning_rate(*encoder.transformer_size, full=config.train.full)


def _say_best(state: Progress, selection: Selection | None) -> None:
    if selection is None:
        say(NO_DEV)
    elif state.best_score is not None and state.base_score is not None and state.best_score <= state.base_score:
        say(
            f"no step of the training is better on dev than the base ({selection.metric} {state.base_score:.4f}, the "
            f"best trained one {state.best_score:.4f}); that one is written, and proves nothing yet"
        )


def _report(
    state: Progress,
    encoder: Encoder,
    trainable: Mapping[str, nn.Parameter],
    course: MixedSchedule,
    parts: Sequence[TrainingTask],
    scales: Sequence[Scale | None],
    metrics: Path,
) -> EncoderTraining:
    report: dict[str, Any] = {
        "loss": ", ".join(dict.fromkeys(part.loss for part in parts)),
        "examples": sum(len(part.examples) for part in parts),
        "batch_size": course.tasks[0].batch_size,
        **hard_negative_share(parts),
        **training_numbers(state, course, trainable, encoder.parameters),
        "base_score": state.base_score,
        **_scales(parts, scales),
        **learned_temperatures(trainable, {part.task.name: part.task.config.objective for part in parts}),
    }
    if len(parts) > 1:
        report["tasks"] = task_report(parts, metrics, state)
    return cast(EncoderTraining, report)


def _scales(parts: Sequence[TrainingTask], scales: Sequence[Scale | None]) -> dict[str, Any]:
    found = {part.task.name: scale for part, scale in zip(parts, scales, strict=True) if scale is not None}
    if not found:
        return {}
    return {"scales": found} if len(parts) > 1 else {"scale": found[parts[0].task.name]}


def _domain(encoder: Encoder, parts: Sequence[TrainingTask]) -> QueryDomain | None:
    """Where the queries of the training lie, by the base: a router sends queries like them to this adapter."""
    encoder.model.eval()
    with adapters_off(encoder.model):
        return query_domain(
            encoder,
            [query for part in parts for query in part.queries],
            [query for part in parts for query in part.dev_queries],
        )


def _save(
    folder: Path,
    encoder: Encoder,
    weights: Mapping[str, Tensor],
    domain: QueryDomain | None,
    training: EncoderTraining,
    config: RunConfig,
) -> None:
    metrics = {name: training[name] for name in ("steps", "best_step", "base_score", "best_score")}
    if config.train.full:
        save_weights(folder, weights, encoder.source, encoder.use, encoder.source.identity, metrics)
        return
    adapter = Adapter(
        base_id=encoder.source.id,
        base_sha256=encoder.source.sha256,
        rank=config.train.rank,
        alpha=lora_alpha(config.train),
        modules=finished_weights(encoder.model),
        use=encoder.use,
        normalise=encoder.source.files.normalise,
        sides=config.train.sides,
        metrics=metrics,
        domain=domain,
    )
    save_adapter(folder, adapter, encoder.source)
