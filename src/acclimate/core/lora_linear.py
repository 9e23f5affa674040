"""The one LoRA primitive: y = Wx + s * sum_k g_k B_k A_k x (Hu et al. 2021, equation 3, with a gate over K adapters).

Shapes: K adapters, r rank, T rows (all tokens of all texts, flattened), d_in and d_out features.

A `GatedLinear` *calls* the Linear that it wraps and never touches its weight, so any module that has `in_features` and
`out_features` can be a base, quantised ones too. Deviations from the paper: several adapters at once behind a gate
per text, and A and B may be generated tensors (a hypernetwork's output) instead of parameters. `LoraLinear` has the
matrices that train or are generated, `LoraSetLinear` those of finished adapters, each with its own rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.core.frozen_linear import FrozenLinear
from acclimate.core.gate import Gate, GateSlot, NoAdapter
from acclimate.core.int8_linear import Int8Linear
from acclimate.core.linears import device_of, features
from acclimate.errors import ModelError, UsageError

CPU_CALL_COST = {torch.float32: 300_000, torch.bfloat16: 4_500_000}
GPU_CALL_COST = 1_000_000_000
"""What the two small products of one segment cost beside their arithmetic, in multiplications. Measured on an EPYC with
AVX-512 (8 adapters of rank 4 to 32, 40 to 480 rows): 6 microseconds in float32, 50 in bfloat16. On an H100 (8 adapters
of rank 8, 8,000 and 32,000 rows in 64 segments, 384 features, bfloat16): a step takes a quarter of the time that it
takes with a product for each segment, and less than with one for all of them."""


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
        self._in_place = type(base) in (nn.Linear, FrozenLinear, Int8Linear)

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
            y_TO = self._add((0,), 1.0, x_TI, y_TO, self._in_place)
        else:
            raise UsageError(
                f"{self.adapters} adapters are attached and no gate says which text takes which",
                fix="Run forward and backward inside core.lora.gate(...).",
            )
        return y_TO.view(*x.shape[:-1], self.out_features)

    def _matrices(self, adapters: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
        """A [R, d_in] and B [R, d_out] of these adapters, one after the other; R is the sum of their ranks.

        None where they leave this layer as it is.
        """
        raise NotImplementedError

    def _ranks(self, adapters: tuple[int, ...]) -> tuple[int, ...]:
        """Ranks of these adapters in this layer; 0 where one leaves it as it is."""
        raise NotImplementedError

    def _call_cost(self, y_TO: Tensor) -> int:
        """What `Gate.products` may pay to save a call."""
        return 0 if y_TO.device.type == "cpu" else GPU_CALL_COST

    def _update(self, gate: Gate, x_TI: Tensor, y_TO: Tensor) -> Tensor:
        width = self.in_features + self.out_features
        products = gate.products(x_TI, self._ranks(gate.in_use), width, self._call_cost(y_TO))
        if len(products) == 1:
            return self._add(products[0].adapters, products[0].weight, x_TI, y_TO, self._in_place)
        sizes = [product.rows for product in products]
        parts = zip(products, torch.split(x_TI, sizes), torch.split(y_TO, sizes), strict=True)
        if self._in_place and not torch.is_grad_enabled():
            for product, x, y in parts:
                self._add(product.adapters, product.weight, x, y, True)
            return y_TO
        # Under gradient, in-place changes of slices cost a copy of all rows each, one concatenation does not.
        return torch.cat([self._add(product.adapters, product.weight, x, y, False) for product, x, y in parts])

    def _add(
        self, adapters: tuple[int, ...], weight: float | Tensor, x_TI: Tensor, y_TO: Tensor, in_place: bool
    ) -> Tensor:
        """y + weight * scaling * B A x; the weight is one number, or [T, 1] or [T, R]: between A and B."""
        matrices = self._matrices(adapters)
        if matrices is None:
            return y_TO
        A_RI, B_RO = matrices
        inner_TR = functional.linear(x_TI, A_RI.to(x_TI.dtype)).to(y_TO.dtype)
        alpha = self.scaling
        if isinstance(weight, Tensor):
            inner_TR = inner_TR * weight.to(inner_TR.dtype)
        else:
            alpha *= weight
        B_RO = B_RO.to(y_TO.dtype)
        if not in_place:
            return torch.addmm(y_TO, inner_TR, B_RO, alpha=alpha)
        y_TO.addmm_(inner_TR, B_RO, alpha=alpha)
        return y_TO


class LoraLinear(GatedLinear):
    """K adapters of one rank: the form that trains, or is generated.

    Args:
        base: as for `GatedLinear`.
        A_KrI: down-projections [K, r, d_in]; float32 masters, cast to the input's dtype in the forward pass.
        B_KOr: up-projections [K, d_out, r]. Parameters are registered and train; other tensors are used as they are.
        scaling: as for `GatedLinear`.
        dropout: as for `GatedLinear`.
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

    def _matrices(self, adapters: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
        if len(adapters) == 1:
            return self.A[adapters[0]], self.B[adapters[0]].t()
        if not adapters:
            return None
        every = len(adapters) == self.adapters
        A_KrI, B_KOr = (self.A, self.B) if every else (self.A[list(adapters)], self.B[list(adapters)])
        return A_KrI.flatten(0, 1), B_KOr.transpose(1, 2).flatten(0, 1)

    def _ranks(self, adapters: tuple[int, ...]) -> tuple[int, ...]:
        return (self.A.shape[1],) * len(adapters)


class LoraSetLinear(GatedLinear):
    """K finished adapters, each with its own rank, cast once; an adapter may leave this layer as it is.

    Args:
        base: as for `GatedLinear`.
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
        self._every_rank = tuple(ranks)
        self._starts = [0, *itertools.accumulate(ranks)]
        pairs_of = zip(ranks, torch.split(self.A_RI, ranks), torch.split(self.B_RO, ranks), strict=True)
        self._slices = [(A_rI, B_rO) if rank else None for rank, A_rI, B_rO in pairs_of]

    @property
    def adapters(self) -> int:
        """K."""
        return len(self._every_rank)

    def _call_cost(self, y_TO: Tensor) -> int:
        return CPU_CALL_COST.get(y_TO.dtype, 0) if y_TO.device.type == "cpu" else super()._call_cost(y_TO)

    def _ranks(self, adapters: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._every_rank[adapter] for adapter in adapters)

    def _matrices(self, adapters: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
        if len(adapters) == 1:
            return self._slices[adapters[0]]
        if not adapters:
            return None
        if adapters[-1] - adapters[0] + 1 == len(adapters):  # neighbours in the set: no copy
            rows = slice(self._starts[adapters[0]], self._starts[adapters[-1] + 1])
            return self.A_RI[rows], self.B_RO[rows]
        chosen = [pair for adapter in adapters if (pair := self._slices[adapter]) is not None]
        return (torch.cat([A_rI for A_rI, _ in chosen]), torch.cat([B_rO for _, B_rO in chosen])) if chosen else None


def _check(layer: GatedLinear, A_KrI: Tensor, B_KOr: Tensor) -> None:
    expected = (A_KrI.shape[0], layer.out_features, A_KrI.shape[1]) if A_KrI.dim() == 3 else None
    if expected is None or A_KrI.shape[2] != layer.in_features or tuple(B_KOr.shape) != expected:
        raise ModelError(
            f"LoRA matrices A {tuple(A_KrI.shape)} and B {tuple(B_KOr.shape)} do not fit a linear layer from "
            f"{layer.in_features} to {layer.out_features} features",
            possible=f"A [K, r, {layer.in_features}] and B [K, {layer.out_features}, r]",
        )
