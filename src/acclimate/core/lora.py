"""LoRA on the linear layers of a model: put there, taken off, gated (the layers themselves: `core.lora_linear`).

Shapes: K adapters, r rank, N samples (texts), d_in and d_out features.

Where alpha / rank is folded in: `attach` (training) keeps B as PEFT does and multiplies by `scaling = alpha / rank` in
the forward pass, so that Adam takes the same steps as under PEFT. `LoraLinear.weights` returns B with the scaling
folded in, and everything outside of training (`attach_weights`, `attach_set`, merging, adapters in memory) knows only
that form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from acclimate.core.gate import NO_ADAPTER, Gate, GateSlot
from acclimate.core.linears import device_of, features, linears, name_endings, replace_module, select_linears
from acclimate.core.lora_linear import GatedLinear, LoraLinear, LoraSetLinear
from acclimate.errors import ModelError, UsageError


def attach(
    model: nn.Module,
    targets: Sequence[str],
    *,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    adapters: int = 1,
    generator: torch.Generator | None = None,
) -> dict[str, LoraLinear]:
    """Give Linears new, trainable LoRA matrices: A as PEFT draws it (kaiming-uniform, a = sqrt 5), B zero.

    Args:
        model: changed in place; its own parameters are left as they are (freeze them before).
        targets: `all-linear`, or (endings of) module paths: `query`, `attention.self.query`.
        rank: r.
        alpha: the update is multiplied by alpha / rank; equal to the rank if None.
        dropout: probability of dropping an input of A in training mode.
        adapters: K, how many independent adapters.
        generator: a CPU generator for A; torch's default one if None.

    Returns:
        module path -> the LoraLinear that now stands there.

    Raises:
        UsageError: a target matches no Linear, or the model carries LoRA already.
    """
    _refuse_attached(model)
    layers = {}
    for name, base in select_linears(model, targets).items():
        d_in, d_out = features(base)
        A = torch.empty(adapters, rank, d_in).uniform_(-1, 1, generator=generator) / math.sqrt(d_in)
        device = device_of(base)
        layers[name] = LoraLinear(
            base,
            nn.Parameter(A.to(device)),
            nn.Parameter(torch.zeros(adapters, d_out, rank, device=device)),
            scaling=(rank if alpha is None else alpha) / rank,
            dropout=dropout,
        )
    _install(model, layers)
    return layers


def attach_weights(
    model: nn.Module, modules: Mapping[str, tuple[Tensor, Tensor]], *, trainable: bool = False
) -> dict[str, LoraLinear]:
    """Give Linears finished LoRA matrices.

    Args:
        model: changed in place.
        modules: module path -> (A [r, d_in], B [d_out, r]) or stacked (A [K, r, d_in], B [K, d_out, r]), alpha / rank
            folded into B. They are copied to the base's device as float32 parameters.
        trainable: whether training shall go on from them.

    Raises:
        ModelError: the model has no such Linear, or the shapes do not fit it.
        UsageError: the model carries LoRA already.
    """
    _refuse_attached(model)
    found = linears(model)
    layers = {}
    for name, (A, B) in modules.items():
        base = _base_at(found, name)
        device = device_of(base)
        A_KrI, B_KOr = (
            nn.Parameter(
                (matrix if matrix.dim() == 3 else matrix[None]).detach().to(device, torch.float32, copy=True),
                requires_grad=trainable,
            )
            for matrix in (A, B)
        )
        layers[name] = LoraLinear(base, A_KrI, B_KOr)
    _install(model, layers)
    return layers


def attach_set(
    model: nn.Module, adapters: Sequence[Mapping[str, tuple[Tensor, Tensor]]], dtype: torch.dtype = torch.float32
) -> GateSlot:
    """Give Linears the matrices of several finished adapters, each with its own rank and its own layers.

    Args:
        model: changed in place.
        adapters: of each, module path -> (A [r, d_in], B [d_out, r]), alpha / rank folded into B.
        dtype: what they are cast to, once: the one that the model computes in.

    Returns:
        Where the layers read the gate. An open gate says which text takes which; of one adapter, all take it where
        no gate is open.

    Raises:
        ModelError: the model has no such Linear, or the shapes do not fit it.
        UsageError: the model carries LoRA already.
    """
    _refuse_attached(model)
    found = linears(model)
    names = dict.fromkeys(name for modules in adapters for name in modules)
    layers = {
        name: LoraSetLinear(_base_at(found, name), [modules.get(name) for modules in adapters], dtype) for name in names
    }
    return _install(model, layers)


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """Module path -> LoraLinear, in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def finished_weights(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Copy the matrices of the one LoRA that a model carries to the CPU: module path -> (A [r, d_in], B [d_out, r]),
    alpha / rank folded into B."""
    weights = {name: layer.weights() for name, layer in lora_layers(model).items()}
    return {name: (A[0].detach().cpu().clone(), B[0].detach().cpu().clone()) for name, (A, B) in weights.items()}


def detach(model: nn.Module) -> None:
    """Put the plain modules back, untouched as they are."""
    for name, layer in _gated_layers(model).items():
        replace_module(model, name, layer.base)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """`<module path>.A` and `<module path>.B` -> the parameters of the attached LoRA that train."""
    return {
        f"{name}.{side}": matrix
        for name, layer in lora_layers(model).items()
        for side, matrix in (("A", layer.A), ("B", layer.B))
        if isinstance(matrix, nn.Parameter) and matrix.requires_grad
    }


@contextmanager
def gate(model: nn.Module, gate_NK: Tensor | None, lengths_N: Sequence[int] | Tensor | None = None) -> Iterator[None]:
    """Set each sample's weights of the K adapters. Keep it open over forward *and* backward: gradient checkpointing
    runs the forward pass again during the backward pass, and reads the gate again. Other threads wait that long.

    Args:
        model: carries LoRA.
        gate_NK: [N, K], or None for no gate. A sample pays for the adapters whose weight is not 0, and a row of zeros
            is the plain base. Where the gate carries gradients, every sample takes all K.
        lengths_N: rows of each sample in the flattened batch (packing: the number of its tokens). None: all samples
            have equally many rows (a padded batch [N, L, d]).

    Raises:
        UsageError: the shapes do not fit.
    """
    value = None if gate_NK is None else Gate.dense(gate_NK, lengths_N)
    counts = {layer.adapters for layer in _gated_layers(model).values()}
    if value is not None and counts - {value.adapters}:
        raise UsageError(
            f"the gate speaks of {value.adapters} adapters, the model carries {min(counts - {value.adapters})}"
        )
    with ExitStack() as stack:
        for slot in _slots(model):
            stack.enter_context(slot.open(value))
        yield


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """y = Wx for as long as it is open: the base model, at its own speed. Keep it open over the backward pass too."""
    with ExitStack() as stack:
        for slot in _slots(model):
            stack.enter_context(slot.open(NO_ADAPTER))
        yield


def gate_slot(model: nn.Module) -> GateSlot | None:
    """Where the layers of a model with LoRA read their gate; None of a model without."""
    layer = next((module for module in model.modules() if isinstance(module, GatedLinear)), None)
    return None if layer is None else layer.slot


def held(model: nn.Module) -> AbstractContextManager[None]:
    """The model is this thread's for as long as it is open, with whatever gate this thread has open; others wait.

    Whatever reads the gate again after the forward pass (a step's backward pass) has to be inside.
    """
    slot = gate_slot(model)
    return nullcontext() if slot is None else slot.held()


@contextmanager
def generated_as_leaves(model: nn.Module) -> Iterator[None]:
    """Within it, generated A and B are leaves, which collect the gradients of any number of backward passes; at its end
    one backward pass carries what they have collected on to whatever made them.

    Generated matrices share one graph, and the first backward pass through it would free it: a step of several chunks
    has one for each chunk. Nothing changes for matrices that are parameters, or fixed.
    """
    layers = [layer for layer in lora_layers(model).values() if not (layer.A.is_leaf and layer.B.is_leaf)]
    made = [matrix for layer in layers for matrix in (layer.A, layer.B)]
    leaves = [matrix if matrix.is_leaf else matrix.detach().requires_grad_() for matrix in made]
    try:
        for layer, A_KrI, B_KOr in zip(layers, leaves[::2], leaves[1::2], strict=True):
            layer.put(A_KrI, B_KOr)
        yield
    finally:
        for layer, A_KrI, B_KOr in zip(layers, made[::2], made[1::2], strict=True):
            layer.put(A_KrI, B_KOr)
    reached = [
        (matrix, leaf.grad)
        for matrix, leaf in zip(made, leaves, strict=True)
        if leaf is not matrix and leaf.grad is not None
    ]
    if reached:
        torch.autograd.backward([matrix for matrix, _ in reached], [gradient for _, gradient in reached])


def _gated_layers(model: nn.Module) -> dict[str, GatedLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, GatedLinear)}


def _slots(model: nn.Module) -> list[GateSlot]:
    """One for a model whose layers were attached together; hand-made layers have one each."""
    return list(dict.fromkeys(layer.slot for layer in _gated_layers(model).values()))


def _install(model: nn.Module, layers: Mapping[str, GatedLinear]) -> GateSlot:
    slot = GateSlot()
    for name, layer in layers.items():
        layer.slot = slot
        replace_module(model, name, layer)
    return slot


def _base_at(found: Mapping[str, nn.Module], name: str) -> nn.Module:
    if name not in found:
        raise ModelError(
            f"the adapter has matrices for {name!r}, which the model does not have",
            possible=name_endings(found),
            fix="Use the adapter with the base model that it was made for.",
        )
    return found[name]


def _refuse_attached(model: nn.Module) -> None:
    if _gated_layers(model):
        raise UsageError(
            "the model carries an adapter already",
            fix="Call core.lora.detach first, or attach all of them together with attach_set.",
        )
