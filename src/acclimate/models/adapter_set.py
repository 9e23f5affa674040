"""AdapterSet: many adapters of one base, any of them in any row of a batch.

Rows are sorted by length and cut into chunks as by `Encoder.encode`; inside a chunk the rows of one adapter are
neighbours, so that in every layer they are a slice (`core.lora_linear`). A row costs what its own adapters cost,
however many the set has.

Shapes: N rows, T packed tokens, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core import lora
from acclimate.core.batching import chunks_by_tokens, grouped
from acclimate.core.gate import Gate, Mixture
from acclimate.errors import ModelError, UsageError
from acclimate.models.adapter import Adapter
from acclimate.models.chunked import fill, unique_rows
from acclimate.models.encoder import Encoder
from acclimate.models.tokens import Tokens, tokenise
from acclimate.progress import progress
from acclimate.text_use import TextUse
from acclimate.types import Pooling, Role


@dataclass(frozen=True, slots=True)
class Row:
    """A text, and how it becomes a vector."""

    text: str
    """Without a prompt."""
    role: Role = "document"
    """Decides the prompt, and whether an adapter for queries is active."""
    task: str | None = None
    """A task of the adapter's prompts; the base encoder's `task` if None."""
    adapter: str | Mapping[str, float] | None = None
    """A name in the set; several with their weights, whose updates are added up inside each layer; None is the base."""


class Choice(NamedTuple):
    """What is done with a row's tokens."""

    pooling: Pooling
    mixture: Mixture

    @property
    def adapters(self) -> tuple[int, ...]:
        """Rows of the same ones are one segment of the gate, with whatever weights."""
        return tuple(number for number, _ in self.mixture)


class Treatment(NamedTuple):
    """All that decides the vectors of texts, but the texts."""

    prompt: str
    max_tokens: int
    choice: Choice
    dim: int


class AdapterSet:
    """Adapters of one base, each with its own rank and its own use of texts. It never changes; any thread may call it.

    Attributes:
        base: encodes rows without an adapter. The set has layers of its own over the same weights.
        adapters: by name, read-only.

    Args:
        base: without an adapter.
        adapters: by name; made for this base.

    Raises:
        ModelError: an adapter belongs to another base or does not fit it, or the base has two transformers.
        UsageError: the base carries an adapter already.
    """

    def __init__(self, base: Encoder, adapters: Mapping[str, Adapter]) -> None:
        base.require_one_transformer()
        for name, adapter in adapters.items():
            adapter.check_base(base.source)
            if adapter.use.lowercase != base.use.lowercase:
                raise ModelError(
                    f"adapter {name}: lowercase = {adapter.use.lowercase}, the base has {base.use.lowercase}",
                    fix="Load the base as the adapter uses it.",
                )
        self.base = base
        self.adapters: Mapping[str, Adapter] = MappingProxyType(dict(adapters))
        self._number = {name: number for number, name in enumerate(self.adapters)}
        self._model = base.fork().model
        modules = [adapter.modules for adapter in self.adapters.values()]
        self._slot = lora.attach_set(self._model, modules, base.dtype)

    def encode_rows(self, rows: Sequence[Row], *, label: str = "") -> NDArray[np.float32]:
        """Vectors of rows, without gradient; equal rows are computed once.

        Args:
            rows: each with its own prompt, limit, pooling and adapter.
            label: shown with a progress bar; silent if empty.

        Returns:
            float32 [N, D], rows of length 1, in the order given.

        Raises:
            UsageError: an unknown adapter or task; rows of different sizes; adapters that one row cannot mix.
        """
        treatments = [self.treatment(row.adapter, row.role, row.task) for row in rows]
        dim = self._dim(rows, treatments)
        unique, places = unique_rows(
            (how.prompt + row.text, how.max_tokens, how.choice) for row, how in zip(rows, treatments, strict=True)
        )
        limits = np.array([max_tokens for _, max_tokens, _ in unique], np.int64)
        tokens = tokenise(self.base.tokenizer, [prompted for prompted, _, _ in unique], limits)
        vectors = self.encode_tokens(tokens, [choice for _, _, choice in unique], dim, label=label)
        return vectors if len(unique) == len(rows) else vectors[places]

    def encode_tokens(
        self, tokens: Tokens, choices: Sequence[Choice], dim: int, *, label: str = ""
    ) -> NDArray[np.float32]:
        """Vectors of texts that are tokens already, without gradient; each is computed, equal ones too.

        Args:
            tokens: with prompts, cut.
            choices: of each text.
            dim: of all vectors.
            label: shown with a progress bar; silent if empty.

        Returns:
            float32 [N, dim], rows of length 1, in the order given.
        """
        lengths = tokens.lengths
        chunks = [
            grouped(chunk, [(choices[row].pooling, choices[row].adapters) for row in chunk])
            for chunk in chunks_by_tokens(lengths, self.base.chunk_tokens)
        ]
        vectors = np.empty((len(tokens), dim), np.float32)
        with progress(label, int(lengths.sum()), "tokens") as advance, torch.inference_mode():
            fill(
                vectors,
                chunks,
                lambda chunk: self._forward(tokens, chunk, [choices[row] for row in chunk], dim),
                lambda chunk: advance(int(lengths[chunk].sum())),
            )
        return vectors

    def treatment(self, adapter: str | Mapping[str, float] | None, role: Role, task: str | None = None) -> Treatment:
        """How texts with this adapter, or these, become vectors; the arguments are as in `Row`.

        Raises:
            UsageError: an unknown adapter or task, or several adapters that are not used alike.
        """
        use = self.use_of(adapter)
        weights = _weights(adapter)
        active = [name for name in weights if self._adapter(name).sides == "both" or role == "query"]
        mixture = tuple(sorted((self._number[name], weights[name]) for name in active if weights[name]))
        prompt = use.prompts.prompt(role, task or self.base.task)
        return Treatment(prompt, use.max_tokens, Choice(use.pooling, mixture), use.dim)

    def use_of(self, adapter: str | Mapping[str, float] | None) -> TextUse:
        """How the texts of a row with this adapter, or these, become vectors.

        Raises:
            UsageError: an unknown adapter, or several that are not used alike.
        """
        uses = [(name, self._adapter(name).use) for name in _weights(adapter)]
        if not uses:
            return self.base.use
        first, use = uses[0]
        for name, other in uses[1:]:
            if other != use:
                mine, theirs = use.to_json(), other.to_json()
                field = next(field for field in mine if mine[field] != theirs[field])
                raise UsageError(
                    f"{first} and {name} cannot be mixed in one row: {field} is {mine[field]!r} in one, "
                    f"{theirs[field]!r} in the other",
                    fix="Mix adapters that were trained with the same setting.",
                )
        return use

    def _dim(self, rows: Sequence[Row], treatments: Sequence[Treatment]) -> int:
        """The one size of all rows' vectors."""
        found: dict[int, Any] = {}
        for row, how in zip(rows, treatments, strict=True):
            found.setdefault(how.dim, row.adapter)
        if len(found) > 1:
            sizes = ", ".join(f"{dim} ({adapter or 'the base'})" for dim, adapter in found.items())
            raise UsageError(
                f"the rows' vectors have different dimensions: {sizes}",
                possible="one size in one array",
                fix="Encode them in separate calls.",
            )
        return next(iter(found), self.base.use.dim)

    def _forward(self, tokens: Tokens, chunk: NDArray[np.int64], choices: Sequence[Choice], dim: int) -> Tensor:
        base = self.base
        lengths = tokens.offsets[chunk + 1] - tokens.offsets[chunk]
        rows_of = lengths.tolist() if base.packed else None  # padded texts all have the longest one's rows
        gate = Gate(len(self.adapters), [choice.mixture for choice in choices], rows_of)
        with self._slot.open(gate):
            hidden_TD, _ = base.hidden_states(tokens, chunk, self._model)
        counts = [len(list(members)) for _, members in groupby(choices, key=lambda choice: choice.pooling)]
        firsts = np.cumsum([0, *counts])
        of_parts = np.split(lengths, firsts[1:-1])
        hidden = torch.split(hidden_TD, [int(part.sum()) for part in of_parts])
        poolings = [choices[first].pooling for first in firsts[:-1]]
        parts = zip(hidden, of_parts, poolings, strict=True)
        return torch.cat([base.pooled(states, part, pooling, dim) for states, part, pooling in parts])

    def _adapter(self, name: str) -> Adapter:
        if name not in self.adapters:
            raise UsageError(f"no adapter is called {name!r}", possible=", ".join(self.adapters) or "none: the base")
        return self.adapters[name]


def _weights(adapter: str | Mapping[str, float] | None) -> dict[str, float]:
    """Name -> weight, which may be 0: also such an adapter has to be used as the others are."""
    if adapter is None:
        return {}
    if isinstance(adapter, str):
        return {adapter: 1.0}
    if not adapter or not all(math.isfinite(weight) for weight in adapter.values()):
        raise UsageError(f"adapter = {dict(adapter)}", possible="a name, several with finite weights, or None")
    return dict(adapter)
