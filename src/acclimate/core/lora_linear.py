"""The one LoRA primitive: y = Wx + s * sum_k g_k B_k A_k x (Hu et al. 2021, equation 3, with a gate over K adapters).

Shapes: K adapters, r rank, T rows (all tokens of all texts, flattened), d_in and d_out features.

A `GatedLinear` *calls* the Linear that it wraps and never touches its weight, so any module that has `in_features` and
`out_features` can be a base, quantised ones too. Deviations from the paper: several adapters at once behind a gate
per text, and A and B may be generated tensors (a hypernetwork's output) instead of parameters. `LoraLinear` has the
matrices that train or are generated, `LoraSetLinear` those of finished adapters, each with its own rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.core.frozen_linear import FrozenLinear
from acclimate.core.gate import Gate, GateSlot, NoAdapter, Segment
from acclimate.core.linears import device_of, features
from acclimate.errors import ModelError, UsageError


class GatedLinear(nn.Module):
    """A Linear-like module and K low-rank updates beside it; which row takes which, the open gate says.

    Attributes:
        base: any module with `in_features` and `out_features` that maps [..., d_in] to [..., d_out].
        slot: where the gate is read; all layers of a model share one.
        scaling: the update is multiplied by it.
        dropout: probability of dropping an input of A. The mask is drawn from torch's default generator, in training
            mode only: who seeds that generator per chunk gets the same mask again.
    """

    def __init__(self, base: nn.Module, *, scaling: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base
        self.in_features, self.out_features = features(base)
        self.scaling = scaling
        self.dropout = dropout
        self.slot = GateSlot()
        # A plain Linear's output is fresh memory that no backward pass needs: the update is added in place.
        self._in_place = type(base) in (nn.Linear, FrozenLinear)

    @property
    def weight(self) -> Any:
        """The base's weight: some models look at its dtype."""
        return self.base.weight

    @property
    def adapters(self) -> int:
        """K."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_out]; the leading dimensions, flattened, are the T rows that the gate speaks of."""
        gate = self.slot.gate
        if isinstance(gate, NoAdapter):
            output: Tensor = self.base(x)
            return output
        x_TI = x.reshape(-1, self.in_features)
        y_TO = self.base(x_TI)
        if self.dropout and self.training:
            x_TI = functional.dropout(x_TI, self.dropout)
        if gate is not None:
            y_TO = self._update(gate, x_TI, y_TO)
        elif self.adapters == 1:
            y_TO = self._add(0, 1.0, x_TI, y_TO, self._in_place)
        else:
            raise UsageError(
                f"{self.adapters} adapters are attached and no gate says which text takes which",
                fix="Run forward and backward inside core.lora.gate(...).",
            )
        return y_TO.view(*x.shape[:-1], self.out_features)

    def _pair(self, adapter: int) -> tuple[Tensor, Tensor] | None:
        """A [r, d_in] and B [d_out, r] of one adapter; None where it leaves this layer as it is."""
        raise NotImplementedError

    def _update(self, gate: Gate, x_TI: Tensor, y_TO: Tensor) -> Tensor:
        segments = gate.segments(len(x_TI), x_TI.device)
        if len(segments) == 1:
            return self._take(segments[0], x_TI, y_TO, self._in_place)
        sizes = [segment.rows for segment in segments]
        parts = zip(segments, torch.split(x_TI, sizes), torch.split(y_TO, sizes), strict=True)
        if self._in_place and not torch.is_grad_enabled():
            for segment, x, y in parts:
                self._take(segment, x, y, True)
            return y_TO
        # Under gradient, in-place changes of slices cost a copy of all rows each, one concatenation does not.
        return torch.cat([self._take(segment, x, y, False) for segment, x, y in parts])

    def _take(self, segment: Segment, x_TI: Tensor, y_TO: Tensor, in_place: bool) -> Tensor:
        for adapter, weight in segment.parts:
            y_TO = self._add(adapter, weight, x_TI, y_TO, in_place)
        return y_TO

    def _add(self, adapter: int, weight: float | Tensor, x_TI: Tensor, y_TO: Tensor, in_place: bool) -> Tensor:
        pair = self._pair(adapter)
        if pair is None:
            return y_TO
        A_rI, B_Or = pair
        inner_Tr = functional.linear(x_TI, A_rI.to(x_TI.dtype)).to(y_TO.dtype)
        alpha = self.scaling
        if isinstance(weight, Tensor):
            inner_Tr = inner_Tr * weight.to(inner_Tr.dtype)
        else:
            alpha *= weight
        B_rO = B_Or.to(y_TO.dtype).t()
        return (y_TO.addmm_ if in_place else y_TO.addmm)(inner_Tr, B_rO, alpha=alpha)


class LoraLinear(GatedLinear):
    """K adapters of one rank: the form that trains, or is generated.

    Args:
        base: see `GatedLinear`.
        A_KrI: down-projections [K, r, d_in]; float32 masters, cast to the input's dtype in the forward pass.
        B_KOr: up-projections [K, d_out, r]. Parameters are registered and train; other tensors are used as they are.
        scaling: see `GatedLinear`.
        dropout: see `GatedLinear`.
    """

    def __init__(
        self, base: nn.Module, A_KrI: Tensor, B_KOr: Tensor, *, scaling: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(base, scaling=scaling, dropout=dropout)
        self.A: Tensor
        self.B: Tensor
        _check(self, A_KrI, B_KOr)
        self.A, self.B = A_KrI, B_KOr

    @property
    def adapters(self) -> int:
        """K."""
        return self.A.shape[0]

    def weights(self) -> tuple[Tensor, Tensor]:
        """A [K, r, d_in] and B [K, d_out, r] with the scaling folded in."""
        return self.A, self.B if self.scaling == 1.0 else self.B * self.scaling

    def set_weights(self, A_KrI: Tensor, B_KOr: Tensor) -> None:
        """Replace A and B (scaling folded in); they may be generated, gradients then flow to what made them.

        A step of several chunks runs inside `generated_as_leaves`.
        """
        _check(self, A_KrI, B_KOr)
        self.put(A_KrI, B_KOr)
        self.scaling = 1.0

    def put(self, A_KrI: Tensor, B_KOr: Tensor) -> None:
        """Replace A and B by matrices of the same shapes and scaling."""
        del self.A, self.B
        self.A, self.B = A_KrI, B_KOr

    def _pair(self, adapter: int) -> tuple[Tensor, Tensor]:
        return self.A[adapter], self.B[adapter]


class LoraSetLinear(GatedLinear):
    """K finished adapters, each with its own rank, cast once; an adapter may leave this layer as it is.

    Args:
        base: see `GatedLinear`.
        pairs: (A [r, d_in], B [d_out, r]) of each adapter, alpha / rank folded into B; None where it has none here.
        dtype: what they are cast to: the one that the model computes in.
    """

    def __init__(self, base: nn.Module, pairs: Sequence[tuple[Tensor, Tensor] | None], dtype: torch.dtype) -> None:
        super().__init__(base)
        device = device_of(base)
        self._pairs: list[tuple[Tensor, Tensor] | None] = []
        for adapter, pair in enumerate(pairs):
            if pair is not None:
                A_rI, B_Or = pair
                _check(self, A_rI[None], B_Or[None])
                A_rI, B_Or = (
                    nn.Parameter(matrix.detach().to(device, dtype, copy=True), requires_grad=False) for matrix in pair
                )
                # Registered, so that they count among the model's; read from the list, which is faster.
                self.register_parameter(f"A{adapter}", A_rI)
                self.register_parameter(f"B{adapter}", B_Or)
                pair = A_rI, B_Or
            self._pairs.append(pair)

    @property
    def adapters(self) -> int:
        """K."""
        return len(self._pairs)

    def _pair(self, adapter: int) -> tuple[Tensor, Tensor] | None:
        return self._pairs[adapter]


def _check(layer: GatedLinear, A_KrI: Tensor, B_KOr: Tensor) -> None:
    expected = (A_KrI.shape[0], layer.out_features, A_KrI.shape[1]) if A_KrI.dim() == 3 else None
    if expected is None or A_KrI.shape[2] != layer.in_features or tuple(B_KOr.shape) != expected:
        raise ModelError(
            f"LoRA matrices A {tuple(A_KrI.shape)} and B {tuple(B_KOr.shape)} do not fit a linear layer from "
            f"{layer.in_features} to {layer.out_features} features",
            possible=f"A [K, r, {layer.in_features}] and B [K, {layer.out_features}, r]",
        )
