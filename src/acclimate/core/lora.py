"""The one LoRA primitive: y = Wx + s * sum_k g_k B_k A_k x (Hu et al. 2021, equation 3, with a gate over K adapters).

Shapes: K adapters, r rank, N samples (texts), T rows (all tokens of all samples, flattened), d_in and d_out features.

`LoraLinear` calls the Linear that it wraps and never touches its weight, so any module that has `in_features` and
`out_features` can be a base, quantised ones too. Deviations from the paper: several adapters at once behind a gate
per sample, and A and B may be generated tensors (a hypernetwork's output) instead of parameters.

Where alpha / rank is folded in: `attach` (training) keeps B as PEFT does and multiplies by `scaling = alpha / rank` in
the forward pass, so that Adam takes the same steps as under PEFT. `weights()` returns B with the scaling folded in,
and everything outside of training (`attach_weights`, `set_weights`, merging, adapters in memory) knows only that form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.core.frozen_linear import FrozenLinear
from acclimate.core.gate import Gate
from acclimate.errors import ModelError, UsageError

ALL_LINEAR = "all-linear"


class LoraLinear(nn.Module):
    """A Linear-like module and K low-rank updates beside it.

    Args:
        base: any module with `in_features` and `out_features` that maps [..., d_in] to [..., d_out].
        A_KrI: down-projections [K, r, d_in]; float32 masters, cast to the input's dtype in the forward pass.
        B_KOr: up-projections [K, d_out, r]. Parameters are registered and train; other tensors are used as they are.
        scaling: the update is multiplied by it.
        dropout: probability of dropping an input of A. The mask is drawn from torch's default generator, in training
            mode only: who seeds that generator per chunk gets the same mask again.
    """

    def __init__(
        self, base: nn.Module, A_KrI: Tensor, B_KOr: Tensor, *, scaling: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.base = base
        self.in_features, self.out_features = _features(base)
        self.dropout = dropout
        self.enabled = True
        self.gate: Gate | None = None
        # A plain Linear's output is fresh memory that no backward pass needs: the update is added in place.
        self._in_place = type(base) in (nn.Linear, FrozenLinear)
        self.A: Tensor
        self.B: Tensor
        self.scaling = scaling
        self._check(A_KrI, B_KOr)
        self.A, self.B = A_KrI, B_KOr

    @property
    def weight(self) -> Any:
        """The base's weight: some models look at its dtype."""
        return self.base.weight

    @property
    def adapters(self) -> int:
        """K."""
        return self.A.shape[0]

    def weights(self) -> tuple[Tensor, Tensor]:
        """A [K, r, d_in] and B [K, d_out, r] with the scaling folded in."""
        return self.A, self.B if self.scaling == 1.0 else self.B * self.scaling

    def set_weights(self, A_KrI: Tensor, B_KOr: Tensor) -> None:
        """Replace A and B (scaling folded in); they may be generated, gradients then flow to what made them."""
        self._check(A_KrI, B_KOr)
        del self.A, self.B
        self.A, self.B, self.scaling = A_KrI, B_KOr, 1.0

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_out]; the leading dimensions, flattened, are the T rows that the gate speaks of."""
        if not self.enabled:
            output: Tensor = self.base(x)
            return output
        x_TI = x.reshape(-1, self.in_features)
        y_TO = self.base(x_TI)
        if self.dropout and self.training:
            x_TI = functional.dropout(x_TI, self.dropout)
        y_TO = self._update(x_TI, y_TO)
        return y_TO.view(*x.shape[:-1], self.out_features)

    def _update(self, x_TI: Tensor, y_TO: Tensor) -> Tensor:
        if self.gate is None:
            if self.adapters > 1:
                raise UsageError(
                    f"{self.adapters} adapters are attached and no gate says which text takes which",
                    fix="Run forward and backward inside core.lora.gate(...).",
                )
            return self._add(y_TO, x_TI, self.A[0], self.B[0])
        groups = self.gate.groups(len(x_TI), x_TI.device)
        if groups is None:
            return self._mix(x_TI, y_TO, self.gate.rows(len(x_TI), x_TI.device))
        if groups.only is not None:
            return self._add(y_TO, x_TI, self.A[groups.only], self.B[groups.only])
        if not groups.sizes:
            return y_TO
        parts = torch.split(x_TI.index_select(0, groups.order), list(groups.sizes.values()))
        delta_TO = torch.cat(
            [
                functional.linear(functional.linear(part, self.A[k].to(x_TI.dtype)), self.B[k].to(x_TI.dtype))
                for k, part in zip(groups.sizes, parts, strict=True)
            ]
        )
        return y_TO.index_add(0, groups.order, delta_TO.to(y_TO.dtype), alpha=self.scaling)

    def _mix(self, x_TI: Tensor, y_TO: Tensor, gate_TK: Tensor) -> Tensor:
        """The soft gate: all K adapters on every row, as one product of rank K * r with its inner rows weighted."""
        K, r = self.A.shape[:2]
        inner_TKr = functional.linear(x_TI, self.A.flatten(0, 1).to(x_TI.dtype)).view(-1, K, r)
        inner_TR = (inner_TKr * gate_TK.to(inner_TKr.dtype)[:, :, None]).flatten(1)
        B_RO = self.B.transpose(1, 2).flatten(0, 1).to(y_TO.dtype)
        return torch.addmm(y_TO, inner_TR.to(y_TO.dtype), B_RO, alpha=self.scaling)

    def _add(self, y_TO: Tensor, x_TI: Tensor, A_rI: Tensor, B_Or: Tensor) -> Tensor:
        """The fast path: one adapter for all rows."""
        inner_Tr = functional.linear(x_TI, A_rI.to(x_TI.dtype)).to(y_TO.dtype)
        B_rO = B_Or.to(y_TO.dtype).t()
        if self._in_place:
            return y_TO.addmm_(inner_Tr, B_rO, alpha=self.scaling)
        return torch.addmm(y_TO, inner_Tr, B_rO, alpha=self.scaling)

    def _check(self, A_KrI: Tensor, B_KOr: Tensor) -> None:
        expected = (A_KrI.shape[0], self.out_features, A_KrI.shape[1]) if A_KrI.dim() == 3 else None
        if expected is None or A_KrI.shape[2] != self.in_features or tuple(B_KOr.shape) != expected:
            raise ModelError(
                f"LoRA matrices A {tuple(A_KrI.shape)} and B {tuple(B_KOr.shape)} do not fit a linear layer from "
                f"{self.in_features} to {self.out_features} features",
                possible=f"A [K, r, {self.in_features}] and B [K, {self.out_features}, r]",
            )


def linear_names(model: nn.Module) -> list[str]:
    """Full paths of all Linear-like modules, those that carry LoRA included, in the model's order."""
    return list(_linears(model))


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
    for name, base in _select(model, targets).items():
        d_in, d_out = _features(base)
        A = torch.empty(adapters, rank, d_in).uniform_(-1, 1, generator=generator) / math.sqrt(d_in)
        device = _device(base)
        layers[name] = LoraLinear(
            base,
            nn.Parameter(A.to(device)),
            nn.Parameter(torch.zeros(adapters, d_out, rank, device=device)),
            scaling=(rank if alpha is None else alpha) / rank,
            dropout=dropout,
        )
    return _install(model, layers)


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
    linears = _linears(model)
    layers = {}
    for name, (A, B) in modules.items():
        if name not in linears:
            raise ModelError(
                f"the adapter has matrices for {name!r}, which the model does not have",
                possible=_endings(linears),
                fix="Use the adapter with the base model that it was made for.",
            )
        device = _device(linears[name])
        A_KrI, B_KOr = (
            nn.Parameter(
                (matrix if matrix.dim() == 3 else matrix[None]).detach().to(device, torch.float32, copy=True),
                requires_grad=trainable,
            )
            for matrix in (A, B)
        )
        layers[name] = LoraLinear(linears[name], A_KrI, B_KOr)
    return _install(model, layers)


def stack(adapters: Sequence[Mapping[str, tuple[Tensor, Tensor]]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Several adapters as one stacked set for `attach_weights`: A [K, r, d_in], B [K, d_out, r].

    Members of lower rank, or without a module, are padded with zeros, which changes nothing: B A has the same value.
    """
    stacked = {}
    for name in dict.fromkeys(name for modules in adapters for name in modules):
        present = {k: modules[name] for k, modules in enumerate(adapters) if name in modules}
        rank = max(A.shape[0] for A, _ in present.values())
        first_A, first_B = next(iter(present.values()))
        A_KrI = first_A.new_zeros(len(adapters), rank, first_A.shape[1])
        B_KOr = first_B.new_zeros(len(adapters), first_B.shape[0], rank)
        for k, (A, B) in present.items():
            A_KrI[k, : A.shape[0]] = A
            B_KOr[k, :, : B.shape[1]] = B
        stacked[name] = (A_KrI, B_KOr)
    return stacked


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """Module path -> LoraLinear, in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def detach(model: nn.Module) -> None:
    """Put the plain modules back, untouched as they are."""
    for name, layer in lora_layers(model).items():
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
    runs the forward pass again during the backward pass, and reads the gate again.

    Args:
        model: carries LoRA.
        gate_NK: [N, K], or None for no gate. Rows of zeros and at most one 1 (one-hot, or all zeros for the plain
            base) run each adapter on its own rows only; any other gate mixes, and may carry gradients.
        lengths_N: rows of each sample in the flattened batch (packing: the number of its tokens). None: all samples
            have equally many rows (a padded batch [N, L, d]).

    Raises:
        UsageError: the shapes do not fit.
    """
    layers = list(lora_layers(model).values())
    value = None if gate_NK is None else Gate(gate_NK, lengths_N)
    if value is not None and (wrong := [layer.adapters for layer in layers if layer.adapters != value.adapters]):
        raise UsageError(f"the gate speaks of {value.adapters} adapters, the model carries {wrong[0]}")
    before = [layer.gate for layer in layers]
    for layer in layers:
        layer.gate = value
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.gate = old


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """y = Wx for as long as it is open: the base model, at its own speed. Keep it open over the backward pass too."""
    layers = list(lora_layers(model).values())
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.enabled = old


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` at the path `name`, in the mode (training or not) of what stood there."""
    parent, _, leaf = name.rpartition(".")
    module.training = model.get_submodule(name).training
    setattr(model.get_submodule(parent), leaf, module)


def _install(model: nn.Module, layers: dict[str, LoraLinear]) -> dict[str, LoraLinear]:
    for name, layer in layers.items():
        replace_module(model, name, layer)
    return layers


def _refuse_attached(model: nn.Module) -> None:
    if lora_layers(model):
        raise UsageError(
            "the model carries an adapter already", fix="Call core.lora.detach first, or stack the adapters."
        )


def _linears(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """Linear-like modules by path; what lies inside one (a LoraLinear's base) belongs to it."""
    found: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if hasattr(child, "in_features") and hasattr(child, "out_features"):
            found[prefix + name] = child
        else:
            found |= _linears(child, f"{prefix}{name}.")
    return found


def _select(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    linears = _linears(model)
    chosen: set[str] = set()
    for target in targets:
        matches = {name for name in linears if target == ALL_LINEAR or name == target or name.endswith("." + target)}
        if not matches:
            raise UsageError(
                f"targets: no linear layer of the model is called {target!r}",
                possible=f"{ALL_LINEAR}, or (endings of) {_endings(linears)}",
            )
        chosen |= matches
    return {name: module for name, module in linears.items() if name in chosen}


def _endings(linears: Mapping[str, object]) -> str:
    """The shortest useful names: paths without what comes before and including the layer's number."""
    tails = (name.split(".") for name in linears)
    short = (
        ".".join(parts[1 + max((i for i, part in enumerate(parts) if part.isdigit()), default=-1) :]) for parts in tails
    )
    return ", ".join(dict.fromkeys(name for name in short if name)) or "none (the model has no linear layer)"


def _features(base: nn.Module) -> tuple[int, int]:
    d_in: Any = base.in_features
    d_out: Any = base.out_features
    return int(d_in), int(d_out)


def _device(base: nn.Module) -> torch.device:
    """Where the base computes; a quantised module without parameters and buffers is a CPU one."""
    tensor = next(itertools.chain(base.parameters(), base.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
