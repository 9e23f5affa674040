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
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeAlias

import torch
from torch import Tensor

from acclimate.errors import UsageError

Mixture: TypeAlias = tuple[tuple[int, float], ...]
"""What one sample takes: (adapter, weight) of each in use; nothing for the plain base."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows that follow one another and take the same adapters."""

    rows: int
    parts: tuple[tuple[int, float | Tensor], ...]
    """(adapter, weight) of each; the weight is one number, or [rows, 1] where it differs from row to row."""


@dataclass(frozen=True, slots=True)
class Segments:
    """A batch's rows, cut up."""

    every: tuple[Segment, ...]
    adapters: tuple[int, ...]
    """Those in use, ascending."""
    weights_TG: Tensor
    """Of each row and adapter in use."""
    rows: list[int]
    """Of each segment."""
    parts: int
    """Of all segments together."""
    _spare: dict[tuple[int, ...], int] = field(default_factory=dict)

    def spare_ranks(self, ranks: tuple[int, ...]) -> int:
        """How many ranks of other adapters than their own all rows together meet, where all adapters in use are one
        product.

        Args:
            ranks: of the adapters in use.
        """
        if ranks not in self._spare:
            rank_of = dict(zip(self.adapters, ranks, strict=True))
            needed = sum(segment.rows * sum(rank_of[k] for k, _ in segment.parts) for segment in self.every)
            self._spare[ranks] = sum(self.rows) * sum(ranks) - needed
        return self._spare[ranks]


class Gate:
    """One batch's gate: a mixture for each sample. Its segments are found at the first layer and shared by all others.

    A row costs what its own adapters cost, however many there are in all. Samples of one set of adapters should be
    neighbours: each segment is a product of its own.

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
        self._mixtures = mixtures
        self._lengths_N = None if lengths is None else [int(length) for length in lengths]
        self._learned_NK: Tensor | None = None
        self._segments: dict[tuple[int, torch.device], Segments] = {}
        self._spread: dict[tuple[object, ...], Tensor] = {}

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

    def segments(self, count: int, device: torch.device) -> Segments:
        """The batch's `count` rows in segments, in their order.

        Raises:
            UsageError: the samples do not have so many rows.
        """
        key = (count, device)
        if key in self._segments:
            return self._segments[key]
        lengths = self._lengths(count)
        adapters = tuple(sorted({k for mixture in self._mixtures for k, _ in mixture}))
        weights_TG = self._weights(adapters, device).repeat_interleave(
            torch.tensor(lengths, device=device), dim=0, output_size=count
        )
        every, start = [], 0
        for support, members in groupby(range(len(lengths)), key=lambda n: [k for k, _ in self._mixtures[n]]):
            samples = list(members)
            rows = sum(lengths[n] for n in samples)
            parts = []
            for place, k in enumerate(support):
                values = {self._mixtures[n][place][1] for n in samples}
                same = len(values) == 1 and self._learned_NK is None
                column = adapters.index(k)
                weight = values.pop() if same else weights_TG[start : start + rows, column : column + 1]
                parts.append((k, weight))
            every.append(Segment(rows, tuple(parts)))
            start += rows
        sizes, calls = [segment.rows for segment in every], sum(len(segment.parts) for segment in every)
        found = Segments(tuple(every), adapters, weights_TG, sizes, calls)
        if self._learned_NK is None:  # weights with a history belong to one layer's pass: it may be computed again
            self._segments[key] = found
        return found

    def spread(self, found: Segments, ranks: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The weights [T, R] of each row for the ranks of the adapters in use, those of one adapter side by side."""
        key = (found.weights_TG.shape, found.weights_TG.device, ranks, dtype)
        if key in self._spread:
            return self._spread[key]
        repeats = torch.tensor(ranks, device=found.weights_TG.device)
        spread_TR = found.weights_TG.repeat_interleave(repeats, dim=1, output_size=sum(ranks)).to(dtype)
        if self._learned_NK is None:
            self._spread[key] = spread_TR
        return spread_TR

    def _weights(self, adapters: tuple[int, ...], device: torch.device) -> Tensor:
        """Of each sample and adapter in use, [N, G]."""
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
