"""The gate of `core.lora`: which sample takes how much of which adapter, expanded to rows and grouped once per batch.

Shapes: N samples, K adapters, T rows (tokens of all samples, flattened).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.errors import UsageError


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows grouped by the one adapter that each takes; rows that take none are in no group."""

    order: Tensor
    """Row numbers, those of the first adapter in use first."""
    sizes: dict[int, int]
    """Adapter -> number of its rows, in the order of `order`; adapters without rows are absent."""
    only: int | None
    """The adapter that all rows take, if there is one: no grouping is needed then."""


class Gate:
    """One batch's gate. Row expansion and grouping are computed at the first layer and shared by all others.

    Args:
        gate_NK: weights [N, K].
        lengths_N: rows of each sample; None: equally many for each.

    Raises:
        UsageError: not [N, K], or lengths of another number of samples.
    """

    def __init__(self, gate_NK: Tensor, lengths_N: Sequence[int] | Tensor | None) -> None:
        if gate_NK.dim() != 2:
            raise UsageError(f"the gate has the shape {tuple(gate_NK.shape)}", possible="[samples, adapters]")
        if lengths_N is not None and len(lengths_N) != len(gate_NK):
            raise UsageError(f"the gate is for {len(gate_NK)} samples, the lengths for {len(lengths_N)}")
        self.gate_NK = gate_NK
        self.lengths_N = None if lengths_N is None else torch.as_tensor(lengths_N)
        self._groups: dict[tuple[int, torch.device], Groups] = {}
        values = gate_NK.detach()
        self._hard = not gate_NK.requires_grad and bool(
            (((values == 0) | (values == 1)).all() & (values.sum(1) <= 1).all()).item()
        )

    @property
    def adapters(self) -> int:
        """K."""
        return self.gate_NK.shape[1]

    def rows(self, count: int, device: torch.device) -> Tensor:
        """The gate of each of `count` rows: [T, K]."""
        lengths_N = self._lengths(count).to(device)
        return self.gate_NK.to(device).repeat_interleave(lengths_N, dim=0, output_size=count)

    def groups(self, count: int, device: torch.device) -> Groups | None:
        """Rows by adapter, or None where a row may take several (a soft gate)."""
        if not self._hard:
            return None
        key = (count, device)
        if key not in self._groups:
            self._groups[key] = self._group(count, device)
        return self._groups[key]

    def _group(self, count: int, device: torch.device) -> Groups:
        values_NK = self.gate_NK.detach().cpu()
        K = values_NK.shape[1]
        # K stands for "none" so that such rows sort last and can be cut off.
        adapter_N = torch.where(values_NK.sum(1) > 0, values_NK.argmax(1), K)
        adapter_T = adapter_N.repeat_interleave(self._lengths(count).cpu(), output_size=count)
        counts = torch.bincount(adapter_T, minlength=K + 1)[:K].tolist()
        sizes = {k: size for k, size in enumerate(counts) if size}
        order = adapter_T.argsort(stable=True)[: sum(counts)]
        only = next(iter(sizes)) if list(sizes.values()) == [count] else None
        return Groups(order.to(device), sizes, only)

    def _lengths(self, count: int) -> Tensor:
        N = len(self.gate_NK)
        if self.lengths_N is None:
            if N == 0 or count % N:
                raise UsageError(f"{count} rows cannot be shared equally by {N} samples", fix="Give the gate lengths.")
            return torch.full((N,), count // N)
        if int(self.lengths_N.sum()) != count:
            raise UsageError(f"the gate's lengths add up to {int(self.lengths_N.sum())} rows, the batch has {count}")
        return self.lengths_N
