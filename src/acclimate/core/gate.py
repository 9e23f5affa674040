"""The gate of `core.lora`: which sample takes how much of which adapter, and whose turn it is to say so.

A model's LoRA layers read one `GateSlot`, which they share. Whoever runs the model opens a gate in it, and holds the
slot's lock for as long as it is open: another thread waits instead of overwriting it. The lock has to be held over
forward *and* backward, because gradient checkpointing runs the forward pass again during the backward pass. That one
may run in threads of autograd's own (on CUDA it does), so the gate is a plain attribute which they read without the
lock, not a value of the thread or of its context, which they would not see.

Shapes: N samples, K adapters, T rows (tokens of all samples, flattened).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import torch
from torch import Tensor

from acclimate.errors import UsageError

Mixture: TypeAlias = tuple[tuple[int, float], ...]
"""What one sample takes: (adapter, weight) of each in use, adapters ascending; nothing for the plain base."""


MAX_JOINED = 16
"""Segments that may become one product: it bounds what is tried."""


@dataclass(frozen=True, slots=True)
class Product:
    """Rows that follow one another and are multiplied by the same adapters at once."""

    rows: int
    adapters: tuple[int, ...]
    """None of them: the rows stay as the base has them."""
    weight: float | Tensor
    """One number, or of each row and rank: [rows, 1] for one adapter, [rows, R] for several, R the sum of their ranks.
    0 where a row does not take an adapter."""


class Gate:
    """One batch's gate: a mixture for each sample. What is multiplied by what is worked out once for all layers alike.

    A row costs what its own adapters cost, however many there are in all. Samples of one set of adapters should be
    neighbours: they are one product.

    Attributes:
        adapters: K.
        in_use: the numbers of the adapters that any sample takes, ascending.

    Args:
        adapters: K.
        mixtures: of each sample.
        lengths: rows of each sample; None: equally many for each.

    Raises:
        UsageError: lengths of another number of samples.
    """

    def __init__(
        self, adapters: int, mixtures: Sequence[Mixture], lengths: Sequence[int] | Tensor | None = None
    ) -> None:
        if lengths is not None and len(lengths) != len(mixtures):
            raise UsageError(f"the gate is for {len(mixtures)} samples, the lengths for {len(lengths)}")
        self.adapters = adapters
        self.in_use = tuple(sorted({k for mixture in mixtures for k, _ in mixture}))
        self._mixtures = mixtures
        self._lengths_N = None if lengths is None else [int(length) for length in lengths]
        self._learned_NK: Tensor | None = None
        self._known: dict[tuple[object, ...], list[Product]] = {}

    @classmethod
    def dense(cls, gate_NK: Tensor, lengths: Sequence[int] | Tensor | None) -> Gate:
        """The gate of a matrix of weights [N, K]; where it carries gradients, every sample takes all K adapters.

        Raises:
            UsageError: not [N, K], or lengths of another number of samples.
        """
        if gate_NK.dim() != 2:
            raise UsageError(f"the gate has the shape {tuple(gate_NK.shape)}", possible="[samples, adapters]")
        learned = gate_NK.requires_grad
        rows = gate_NK.detach().tolist()
        mixtures = [tuple((k, weight) for k, weight in enumerate(row) if weight or learned) for row in rows]
        gate = cls(gate_NK.shape[1], mixtures, lengths)
        gate._learned_NK = gate_NK if learned else None
        return gate

    def products(self, x_TI: Tensor, ranks: tuple[int, ...], width: int, call_cost: int) -> list[Product]:
        """List what a layer multiplies its rows by, in the order of the rows.

        Neighbouring segments of different adapters are one product where that is faster: it multiplies some rows by 0,
        and saves a call.

        Args:
            x_TI: the layer's rows.
            ranks: of the adapters `in_use` in this layer; 0 where one leaves it as it is.
            width: d_in + d_out: multiplications for one row and one rank.
            call_cost: multiplications that take as long as the calls of one product.

        Raises:
            UsageError: the samples do not have so many rows.
        """
        key = (len(x_TI), x_TI.device, ranks, width, call_cost)
        if key in self._known:
            return self._known[key]
        lengths = self._lengths(len(x_TI))
        weights_TG = self._weights(self.in_use, x_TI.device).repeat_interleave(
            torch.tensor(lengths, device=x_TI.device), dim=0, output_size=len(x_TI)
        )
        products, start = [], 0
        for samples in self._joined(lengths, dict(zip(self.in_use, ranks, strict=True)), width, call_cost):
            stop = start + sum(lengths[n] for n in samples)
            adapters = tuple(sorted({k for n in samples for k, _ in self._mixtures[n]}))
            products.append(
                Product(stop - start, adapters, self._weight(adapters, samples, ranks, weights_TG[start:stop]))
            )
            start = stop
        if self._learned_NK is None:  # weights with a history belong to one layer's pass: it may be computed again
            self._known[key] = products
        return products

    def _joined(self, lengths: list[int], rank_of: dict[int, int], width: int, call_cost: int) -> list[range]:
        """The samples of each product: the cheapest way to join neighbouring segments, by dynamic programming."""
        supports = [tuple(k for k, _ in mixture) for mixture in self._mixtures]
        segments = [list(members) for _, members in groupby(range(len(lengths)), key=supports.__getitem__)]
        best: list[tuple[int, int]] = [(0, 0)]
        """Cost up to each segment's end, and where its product begins."""
        for end in range(1, len(segments) + 1):
            found, rows, taken = [], 0, set[int]()
            for first in range(end - 1, max(-1, end - 1 - MAX_JOINED), -1):
                rows += sum(lengths[n] for n in segments[first])
                taken |= set(supports[segments[first][0]])
                rank = sum(rank_of[k] for k in taken)
                found.append((best[first][0] + rows * rank * width + (call_cost if rank else 0), first))
            best.append(min(found))
        joined, end = [], len(segments)
        while end:
            first = best[end][1]
            joined.append(range(segments[first][0], segments[end - 1][-1] + 1))
            end = first
        return joined[::-1]

    def _weight(
        self, adapters: tuple[int, ...], samples: range, ranks: tuple[int, ...], weights_TG: Tensor
    ) -> float | Tensor:
        if len(adapters) == 1 and self._learned_NK is None:
            values = {dict(self._mixtures[n]).get(adapters[0], 0.0) for n in samples}
            if len(values) == 1:
                return values.pop()
        columns = [self.in_use.index(k) for k in adapters]
        of_adapters = weights_TG if len(columns) == weights_TG.shape[1] else weights_TG[:, columns]
        if len(adapters) < 2:
            return of_adapters
        repeats = [ranks[column] for column in columns]
        return of_adapters.repeat_interleave(
            torch.tensor(repeats, device=weights_TG.device), dim=1, output_size=sum(repeats)
        )

    def _weights(self, adapters: tuple[int, ...], device: torch.device) -> Tensor:
        """Weights of each sample and adapter in use, [N, G]."""
        if self._learned_NK is not None:
            return self._learned_NK.to(device)
        taken = [dict(mixture) for mixture in self._mixtures]
        rows = [[mixture.get(k, 0.0) for k in adapters] for mixture in taken]
        return torch.tensor(rows, device=device).view(len(rows), len(adapters))

    def _lengths(self, count: int) -> list[int]:
        N = len(self._mixtures)
        if self._lengths_N is None:
            if N == 0 or count % N:
                raise UsageError(f"{count} rows cannot be shared equally by {N} samples", fix="Give the gate lengths.")
            return [count // N] * N
        if sum(self._lengths_N) != count:
            raise UsageError(f"the gate's lengths add up to {sum(self._lengths_N)} rows, the batch has {count}")
        return self._lengths_N


class NoAdapter:
    """Stands for a gate where the base alone computes, at its own speed."""


NO_ADAPTER = NoAdapter()


class GateSlot:
    """Where the one thread that runs a model puts its gate, and where the model's layers read it.

    Attributes:
        gate: the open one; None where nothing is open: a model with one adapter uses it then.
    """

    def __init__(self) -> None:
        self.gate: Gate | NoAdapter | None = None
        self._lock = threading.RLock()

    @contextmanager
    def open(self, gate: Gate | NoAdapter | None) -> Iterator[None]:
        """Let the layers read `gate`; other threads that want to run the model wait until it is closed."""
        with self._lock:
            before, self.gate = self.gate, gate
            try:
                yield
            finally:
                self.gate = before

    @contextmanager
    def held(self) -> Iterator[None]:
        """Run the model with the gate that this thread has open already, if it has; other threads wait."""
        with self._lock:
            yield

    def __deepcopy__(self, memo: dict[int, Any]) -> GateSlot:
        """A copy of a model is a model of its own: nothing is open in it, and it may run at the same time."""
        return GateSlot()
