"""GraphSet: an exported model in the place of a set of adapters, for the service. It has no adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from acclimate.errors import ModelError, UsageError
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_set import Choice, Treatment
from acclimate.models.backends.engine_encoder import EngineEncoder
from acclimate.models.tokens import Tokens
from acclimate.text_use import TextUse
from acclimate.types import Role


class GraphSet:
    """One export, asked as `AdapterSet` is asked for rows of the base.

    Attributes:
        base: the export.
        adapters: none.

    Args:
        base: of one graph for queries and documents.

    Raises:
        ModelError: queries have a graph of their own.
    """

    def __init__(self, base: EngineEncoder) -> None:
        if base.source.query_sha256 is not None:
            raise ModelError(f"{base.source.id} has a graph of its own for queries", possible="one graph for both")
        self.base = base
        self.adapters: Mapping[str, Adapter] = MappingProxyType({})

    def treatment(self, adapter: str | Mapping[str, float] | None, role: Role, task: str | None = None) -> Treatment:
        """How texts become vectors; see `AdapterSet.treatment`."""
        use = self.use_of(adapter)
        prompt = use.prompts.prompt(role, task or self.base.task)
        return Treatment(prompt, use.max_tokens, Choice(use.pooling, ()), use.dim)

    def use_of(self, adapter: str | Mapping[str, float] | None) -> TextUse:
        """How its texts are used.

        Raises:
            UsageError: an adapter is named.
        """
        if adapter is not None:
            raise UsageError(f"adapter {adapter!r} with an export", possible="none: an export is the whole model")
        return self.base.use

    def encode_tokens(
        self,
        tokens: Tokens,
        choices: Sequence[Choice],  # noqa: ARG002  (the export's own)
        dim: int,
        *,
        label: str = "",
    ) -> NDArray[np.float32]:
        """Vectors of texts that are tokens already; see `AdapterSet.encode_tokens`."""
        return self.base.encode_tokens(tokens, label=label)[:, :dim]
