"""What a training of an embedding model and one of a reranker set up alike: what trains, how, and how it is watched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from torch import nn

from acclimate import processes
from acclimate.configs import TrainConfig
from acclimate.core.linears import ALL_LINEAR
from acclimate.core.lora import attach
from acclimate.errors import UsageError
from acclimate.files import work_folder
from acclimate.models.adapter import Adapter, continue_from
from acclimate.models.dtypes import DTYPES, Format, Use, choose_dtype, named_format
from acclimate.models.loading import checkpoint_activations, compile_layers
from acclimate.progress import say
from acclimate.training.checkpoint import checkpoint_dtype

EVALUATIONS = 4
"""Evaluations on dev over a training, where `eval_steps` does not say."""
NO_DEV = "the dataset has no dev split: the last step is kept, unseen"


def attach_lora(model: nn.Module, settings: TrainConfig, seed: int, start: Adapter | None = None) -> None:
    """Attach LoRA to a model, of the rank and on the layers that the settings name.

    Args:
        model: without LoRA.
        settings: rank, alpha, dropout and targets.
        seed: of a new adapter's matrices.
        start: an adapter to go on from; where the settings name all linear layers, those that it has.

    Raises:
        UsageError: a target is no linear layer; the start has another rank or other layers.
    """
    targets = settings.targets
    if start is not None and targets == (ALL_LINEAR,):
        targets = tuple(start.modules)
    attach(
        model,
        targets,
        rank=settings.rank,
        alpha=settings.alpha,
        dropout=settings.lora_dropout,
        generator=torch.Generator().manual_seed(seed),
    )
    if start is not None:
        continue_from(model, start)


def lora_alpha(settings: TrainConfig) -> float:
    """The LoRA's alpha; its rank where none is given."""
    return float(settings.rank if settings.alpha is None else settings.alpha)


def start_training(
    model: nn.Module,
    trainable: Mapping[str, nn.Parameter],
    settings: TrainConfig,
    *,
    parameters: int,
    packed: bool,
) -> None:
    """Make the chosen parameters trainable, and the model recompute or compile what the settings ask for; say how much.

    Args:
        model: the whole model.
        trainable: name -> parameter.
        settings: `gradient_checkpointing` and `compile_layers`.
        parameters: of the whole model, what trains included.
        packed: whether the model's texts are packed: without that every chunk would be compiled anew.

    Raises:
        UsageError: compiled layers where they do not pay.
    """
    for parameter in trainable.values():
        parameter.requires_grad_(True)
    if settings.gradient_checkpointing:
        checkpoint_activations(model)
    if settings.compile_layers:
        device = next(model.parameters()).device
        if device.type != "cuda":
            raise UsageError(f"--compile-layers on the device {device.type}: it is for CUDA only")
        if not packed:
            raise UsageError("--compile-layers: it is for models whose texts are packed", fix="Leave it out.")
        compile_layers(model)
    count = sum(parameter.numel() for parameter in trainable.values())
    say(f"trainable parameters: {count:,} of {parameters:,} ({100 * count / parameters:.2f} %)")


def training_dtype(name: str, device: torch.device, folder: Path, use: Use, checkpoints: Path, identity: str) -> Format:
    """The number format of a training: its checkpoint's, where it goes on from one; else the one chosen for it.

    Args:
        name: auto, float32 or bfloat16.
        device: where it runs.
        folder: where the model's config.json lies.
        use: whether the weights that train are the model's own, in float32, or LoRA's.
        checkpoints: of the training.
        identity: its own; see `fit`.

    Raises:
        UsageError: an unknown name.
    """
    if kept := checkpoint_dtype(checkpoints, identity):
        return named_format(kept)
    chosen = choose_dtype(name, device, folder, use)
    return processes.from_main(next(name for name, dtype in DTYPES.items() if dtype == chosen))


def mixed_precision(
    device: torch.device, computed: torch.dtype, weights: torch.dtype
) -> Callable[[], AbstractContextManager[object]]:
    """What is entered around every forward pass: bf16 over float32 weights, or nothing.

    Adam's small steps vanish in bf16 weights: what trains is float32.

    Args:
        device: of the model.
        computed: the dtype that is asked for.
        weights: the dtype of the weights that train.
    """
    enabled = computed == torch.bfloat16 and weights == torch.float32
    return partial(torch.autocast, device.type, torch.bfloat16, enabled=enabled)


def evaluation_steps(settings: TrainConfig, steps: int) -> int:
    """How many steps lie between two evaluations on dev."""
    return settings.eval_steps or math.ceil(steps / EVALUATIONS)


def checkpoints(out: Path) -> Path:
    """Where the training that writes `out` keeps its checkpoints."""
    return work_folder(out) / "checkpoints"
