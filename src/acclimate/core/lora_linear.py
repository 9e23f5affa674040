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

CPU_CALL_COST = {torch.float32: 200_000, torch.bfloat16: 2_000_000}
GPU_CALL_COST = 50_000_000
"""What the two small products of one segment cost beside their arithmetic, in multiplications: on a CPU 8 microseconds
in float32 and 30 in bfloat16, on a GPU two launches."""


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
        y_TO: Tensor = self.base(x_TI)
        if self.dropout and self.training:
            x_TI = functional.dropout(x_TI, self.dropout)
        if gate is not None:
            y_TO = self._update(gate, x_TI, y_TO)
        elif self.adapters == 1:
            pair = self._pair(0)
            y_TO = y_TO if pair is None else self._add(pair, 1.0, x_TI, y_TO, self._in_place)
        else:
            raise UsageError(
                f"{self.adapters} adapters are attached and no gate says which text takes which",
                fix="Run forward and backward inside core.lora.gate(...).",
            )
        return y_TO.view(*x.shape[:-1], self.out_features)

    def _pair(self, adapter: int) -> tuple[Tensor, Tensor] | None:
        """A [r, d_in] and B [r, d_out] of one adapter; None where it leaves this layer as it is."""
        raise NotImplementedError

    def _ranks(self, adapters: Sequence[int]) -> tuple[int, ...]:
        """Of these adapters in this layer; 0 where one leaves it as it is."""
        raise NotImplementedError

    def _joined(self, adapters: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A [R, d_in] and B [R, d_out] of these adapters, one after the other; R is the sum of their ranks."""
        raise NotImplementedError

    def _update(self, gate: Gate, x_TI: Tensor, y_TO: Tensor) -> Tensor:
        found = gate.segments(len(x_TI), x_TI.device)
        if len(found.every) == 1:
            return self._take(found.every[0], x_TI, y_TO, self._in_place)
        ranks = self._ranks(found.adapters)
        if not any(ranks):
            return y_TO
        wasted = found.spare_ranks(ranks) * (self.in_features + self.out_features)
        if wasted <= found.parts * self._call_cost(y_TO):
            joined = self._joined(found.adapters)
            return self._add(joined, gate.spread(found, ranks, y_TO.dtype), x_TI, y_TO, self._in_place)
        parts = zip(found.every, torch.split(x_TI, found.rows), torch.split(y_TO, found.rows), strict=True)
        if self._in_place and not torch.is_grad_enabled():
            for segment, x, y in parts:
                self._take(segment, x, y, True)
            return y_TO
        # Under gradient, in-place changes of slices cost a copy of all rows each, one concatenation does not.
        return torch.cat([self._take(segment, x, y, False) for segment, x, y in parts])

    def _call_cost(self, y_TO: Tensor) -> int:  # noqa: ARG002
        """Multiplications by 0 that one product for the whole batch may have, to save the call of a smaller one."""
        return 0

    def _take(self, segment: Segment, x_TI: Tensor, y_TO: Tensor, in_place: bool) -> Tensor:
        for adapter, weight in segment.parts:
            pair = self._pair(adapter)
            if pair is not None:
                y_TO = self._add(pair, weight, x_TI, y_TO, in_place)
        return y_TO

    def _add(
        self, pair: tuple[Tensor, Tensor], weight: float | Tensor, x_TI: Tensor, y_TO: Tensor, in_place: bool
    ) -> Tensor:
        """y + weight * scaling * B A x; the weight is one number, or [T, 1] or [T, r]: between A and B."""
        A_rI, B_rO = pair
        inner_Tr = functional.linear(x_TI, A_rI.to(x_TI.dtype)).to(y_TO.dtype)
        alpha = self.scaling
        if isinstance(weight, Tensor):
            inner_Tr = inner_Tr * weight.to(inner_Tr.dtype)
        else:
            alpha *= weight
        B_rO = B_rO.to(y_TO.dtype)
        if not in_place:
            return torch.addmm(y_TO, inner_Tr, B_rO, alpha=alpha)
        y_TO.addmm_(inner_Tr, B_rO, alpha=alpha)
        return y_TO


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
        return self.A[adapter], self.B[adapter].t()

    def _ranks(self, adapters: Sequence[int]) -> tuple[int, ...]:
        return (self.A.shape[1],) * len(adapters)

    def _joined(self, adapters: Sequence[int]) -> tuple[Tensor, Tensor]:
        every = len(adapters) == self.adapters
        A_KrI, B_KOr = (self.A, self.B) if every else (self.A[list(adapters)], self.B[list(adapters)])
        return A_KrI.flatten(0, 1), B_KOr.transpose(1, 2).flatten(0, 1)


class LoraSetLinear(GatedLinear):
    """K finished adapters, each with its own rank, cast once; an adapter may leave this layer as it is.

    Args:
        base: see `GatedLinear`.
        pairs: (A [r, d_in], B [d_out, r]) of each adapter, alpha / rank folded into B; None where it has none here.
        dtype: what they are cast to: the one that the model computes in.
    """

    def __init__(self, base: nn.Module, pairs: Sequence[tuple[Tensor, Tensor] | None], dtype: torch.dtype) -> None:
        super().__init__(base)
        for pair in pairs:
            if pair is not None:
                _check(self, pair[0][None], pair[1][None])
        ranks = [0 if pair is None else len(pair[0]) for pair in pairs]
        present = [pair for pair in pairs if pair is not None]
        # One after the other: all of them together need no copy, and one of them is a slice.
        self.A_RI, self.B_RO = (
            nn.Parameter(torch.cat(matrices).to(device_of(base), dtype), requires_grad=False)
            for matrices in ([A_rI.detach() for A_rI, _ in present], [B_Or.detach().t() for _, B_Or in present])
        )
        slices = zip(ranks, torch.split(self.A_RI, ranks), torch.split(self.B_RO, ranks), strict=True)
        self._slices = [(A_rI, B_rO) if rank else None for rank, A_rI, B_rO in slices]
        self._every_rank = tuple(ranks)

    @property
    def adapters(self) -> int:
        """K."""
        return len(self._every_rank)

    def _call_cost(self, y_TO: Tensor) -> int:
        return CPU_CALL_COST.get(y_TO.dtype, 0) if y_TO.device.type == "cpu" else GPU_CALL_COST

    def _pair(self, adapter: int) -> tuple[Tensor, Tensor] | None:
        return self._slices[adapter]

    def _ranks(self, adapters: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._every_rank[adapter] for adapter in adapters)

    def _joined(self, adapters: Sequence[int]) -> tuple[Tensor, Tensor]:
        if len(adapters) == self.adapters:
            return self.A_RI, self.B_RO
        chosen = [pair for adapter in adapters if (pair := self._slices[adapter]) is not None]
        return torch.cat([A_rI for A_rI, _ in chosen]), torch.cat([B_rO for _, B_rO in chosen])


def _check(layer: GatedLinear, A_KrI: Tensor, B_KOr: Tensor) -> None:
    expected = (A_KrI.shape[0], layer.out_features, A_KrI.shape[1]) if A_KrI.dim() == 3 else None
    if expected is None or A_KrI.shape[2] != layer.in_features or tuple(B_KOr.shape) != expected:
        raise ModelError(
            f"LoRA matrices A {tuple(A_KrI.shape)} and B {tuple(B_KOr.shape)} do not fit a linear layer from "
            f"{layer.in_features} to {layer.out_features} features",
            possible=f"A [K, r, {layer.in_features}] and B [K, {layer.out_features}, r]",
        )
