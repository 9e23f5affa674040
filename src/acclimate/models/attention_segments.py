"""Packed texts cut into runs that attention computes as one batch each, of equal or nearly equal lengths.

A run of texts of one length is a view of the packed row. One of nearly equal lengths is padded to the longest of them:
a few runs for a chunk instead of dozens, each of which costs some twenty small operations in every layer.

Shapes: T tokens of one run, n texts, L slots of each (n L >= T), H heads, d head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

MATRIX_ELEMENTS = 2**24
"""The most attention weights at once (n H L L); a run of more texts is computed in parts."""


@dataclass(frozen=True, eq=False, slots=True)
class Padding:
    """Where the tokens of a run are among its slots."""

    spread: Tensor
    """[n L]: the token of each slot; that of an empty slot is the first, and has no effect."""
    collect: Tensor
    """[T]: the slot of each token."""
    empty: Tensor
    """[n, L], True where a slot holds no token."""


@dataclass(frozen=True, eq=False, slots=True)
class TextRun:
    """Texts that follow one another."""

    texts: int
    slots: int
    """Rows of each text."""
    tokens: int
    padding: Padding | None
    """None where every slot holds a token."""

    def spread(self, states_HTd: Tensor) -> Tensor:
        """[H, T, d] -> [n, H, L, d]; a view, if nothing is padded."""
        if self.padding is None:
            heads, _, dim = states_HTd.shape
            return states_HTd.view(heads, self.texts, self.slots, dim).transpose(0, 1)
        spread: Tensor = _Spread.apply(states_HTd.transpose(0, 1), self.padding)  # type: ignore[no-untyped-call]
        return spread.view(self.texts, self.slots, *spread.shape[1:]).transpose(1, 2)

    def collect(self, states_nHLd: Tensor) -> Tensor:
        """[n, H, L, d] -> [T, H, d]."""
        slots = states_nHLd.transpose(1, 2).flatten(0, 1)
        if self.padding is None:
            return slots
        collected: Tensor = _Collect.apply(slots, self.padding)  # type: ignore[no-untyped-call]
        return collected


class _Spread(torch.autograd.Function):
    """Tokens -> slots. An empty slot's gradient is 0 (no token attends to it, and nobody reads what it computes), so
    the gradient needs no sum over slots: it is read from the slots as `_Collect` reads them."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, padding: Padding) -> Tensor:
        ctx.padding = padding
        return tokens.index_select(0, padding.spread)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.index_select(0, ctx.padding.collect), None


class _Collect(torch.autograd.Function):
    """Slots -> tokens."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, padding: Padding) -> Tensor:
        ctx.padding = padding
        return slots.index_select(0, padding.collect)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        spread = gradient.index_select(0, ctx.padding.spread)
        return spread.masked_fill_(ctx.padding.empty.view(-1, 1, 1), 0.0), None


@lru_cache(maxsize=8)
def text_runs(
    lengths: tuple[int, ...], heads: int, step: int = 1, longest: int = 0, elements: int | None = None
) -> list[TextRun]:
    """The runs of a chunk, in order; the same for every layer.

    Args:
        lengths: tokens of each text; those of one length should be neighbours.
        heads: H.
        step: lengths up to `longest` are rounded up to a multiple of it; 1 pads nothing.
        longest: see `step`.
        elements: the most attention weights of a run; `MATRIX_ELEMENTS` if not given.
    """

    def slots(length: int) -> int:
        return -(-length // step) * step if length <= longest else length

    runs = []
    for size, members in groupby(lengths, key=slots):
        texts = list(members)
        most = max(1, (elements or MATRIX_ELEMENTS) // (heads * size * size))
        runs += [_run(texts[start : start + most]) for start in range(0, len(texts), most)]
    return runs


def _run(lengths: list[int]) -> TextRun:
    slots, tokens = max(lengths), sum(lengths)
    if slots * len(lengths) == tokens:
        return TextRun(len(lengths), slots, tokens, None)
    held_nL = np.arange(slots) < np.array(lengths)[:, None]
    collect_T = np.flatnonzero(held_nL)
    spread = np.zeros(held_nL.size, np.int64)
    spread[collect_T] = np.arange(tokens)
    # Cached: whoever comes first may be in inference mode, whose tensors a later backward pass could not use.
    with torch.inference_mode(False):
        padding = Padding(torch.from_numpy(spread), torch.from_numpy(collect_T), torch.from_numpy(~held_nL))
    return TextRun(len(lengths), slots, tokens, padding)
