"""TextEncoder: what every encoder of texts offers, whatever computes its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.formats.sources import ModelSource
from acclimate.models.reading import Reading
from acclimate.models.tokens import Tokens
from acclimate.text_use import SpaceId, TextUse
from acclimate.types import Role


class TextEncoder(Protocol):
    """Texts -> unit vectors: `Encoder` (torch), or `EngineEncoder` (an exported graph).

    All that measures, indexes and searches takes one; training, and what puts adapters on a model, needs an `Encoder`.
    """

    @property
    def use(self) -> TextUse:
        """How texts become vectors."""

    @property
    def task(self) -> str | None:
        """Whose prompts are used where no other task is named."""

    @property
    def source(self) -> ModelSource:
        """Where it comes from."""

    @property
    def tokenizer(self) -> Any:
        """Its fast tokenizer."""

    @property
    def device(self) -> torch.device:
        """Where vectors are compared."""

    @property
    def space(self) -> SpaceId:
        """The space of its document vectors; its queries search it."""

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the vectors of both roles."""

    def role_fingerprint(self, role: Role, task: str | None = None) -> str:
        """sha256 over what decides the vectors of one role and task: the key of stored vectors."""

    def encode(
        self, texts: Sequence[str], role: Role = "document", task: str | None = None, *, label: str = ""
    ) -> NDArray[np.float32]:
        """Unit vectors [N, D] of texts without prompts, in their order."""

    def tokenise(self, texts: Sequence[str], role: Role = "document", task: str | None = None) -> Tokens:
        """Tokens of the texts with their prompt before them, cut to the limit."""

    def reading(self, texts: Sequence[str], role: Role = "document") -> Reading:
        """Find out what of texts reaches the model."""

    def for_task(self, task: str | None) -> TextEncoder:
        """The same encoder with the prompts of another task."""
