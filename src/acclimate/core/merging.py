"""Folding adapters into weights, exactly: W' = W + B A in float32.

Shapes: r rank, d_in and d_out features. B comes with alpha / rank folded in (`LoraLinear.weights`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acclimate.core.lora import LoraLinear, lora_layers, replace_module
from acclimate.errors import ModelError, UsageError


def fold(weight_OI: Tensor, A_rI: Tensor, B_Or: Tensor) -> Tensor:
    """W + B A as float32 [d_out, d_in]; nothing is changed in place."""
    return torch.addmm(weight_OI.detach().float(), B_Or.detach().float(), A_rI.detach().float())


def merge_into(model: nn.Module) -> None:
    """Replace every LoraLinear of `model` by a plain Linear that computes the same.

    Load the base in float32 before: the merged weights are float32, whatever the base was.

    Raises:
        ModelError: a base is quantised: its weight is not what the adapter was trained beside to the last digit, and
            rounding W + B A again would lose the adapter.
        UsageError: several adapters are stacked; which one is meant is not said.
    """
    merged = {name: _merged(name, layer) for name, layer in lora_layers(model).items()}
    for name, linear in merged.items():
        replace_module(model, name, linear)


def _merged(name: str, layer: LoraLinear) -> nn.Linear:
    base = layer.base
    if not isinstance(base, nn.Linear) or not base.weight.is_floating_point():
        raise ModelError(
            f"{name} cannot take the adapter into its weight: its base is a {type(base).__name__}, which is quantised",
            fix="Load the base in float32, attach the adapter, merge, and quantise the result.",
        )
    if layer.adapters != 1:
        raise UsageError(f"{layer.adapters} adapters are attached, one can be merged", fix="Attach only the one.")
    A_KrI, B_KOr = layer.weights()
    linear = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    linear.weight = nn.Parameter(fold(base.weight, A_KrI[0], B_KOr[0]), requires_grad=base.weight.requires_grad)
    if base.bias is not None:
        linear.bias = nn.Parameter(base.bias.detach().float(), requires_grad=base.bias.requires_grad)
    return linear
