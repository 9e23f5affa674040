"""The linear layers of a model, by their paths; what LoRA is attached to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from acclimate.errors import UsageError

ALL_LINEAR = "all-linear"


def linear_names(model: nn.Module) -> list[str]:
    """Full paths of all Linear-like modules, those that carry LoRA included, in the model's order."""
    return list(linears(model))


def linears(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """Linear-like modules by path; what lies inside one (a LoRA layer's base) belongs to it."""
    found: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if hasattr(child, "in_features") and hasattr(child, "out_features"):
            found[prefix + name] = child
        else:
            found |= linears(child, f"{prefix}{name}.")
    return found


def select_linears(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """The Linear-like modules that targets name: `all-linear`, or (endings of) module paths.

    Raises:
        UsageError: a target matches none.
    """
    every = linears(model)
    chosen: set[str] = set()
    for target in targets:
        matches = {name for name in every if target == ALL_LINEAR or name == target or name.endswith("." + target)}
        if not matches:
            raise UsageError(
                f"targets: no linear layer of the model is called {target!r}",
                possible=f"{ALL_LINEAR}, or (endings of) {name_endings(every)}",
            )
        chosen |= matches
    return {name: module for name, module in every.items() if name in chosen}


def name_endings(found: Mapping[str, object]) -> str:
    """The shortest useful names: paths without what comes before and including the layer's number."""
    tails = (name.split(".") for name in found)
    short = (
        ".".join(parts[1 + max((i for i, part in enumerate(parts) if part.isdigit()), default=-1) :]) for parts in tails
    )
    return ", ".join(dict.fromkeys(name for name in short if name)) or "none (the model has no linear layer)"


def features(base: nn.Module) -> tuple[int, int]:
    """d_in and d_out of a Linear-like module."""
    d_in: Any = base.in_features
    d_out: Any = base.out_features
    return int(d_in), int(d_out)


def device_of(base: nn.Module) -> torch.device:
    """Where a module computes; a quantised one without parameters and buffers is a CPU one."""
    tensor = next(itertools.chain(base.parameters(), base.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` at the path `name`, in the mode (training or not) of what stood there."""
    parent, _, leaf = name.rpartition(".")
    module.training = model.get_submodule(name).training
    setattr(model.get_submodule(parent), leaf, module)
