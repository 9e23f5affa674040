"""Texts whose model trains beside images: the text tower of the image model, or an embedding model of its own.

Legend: M texts of the step, n texts of a chunk, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.configs import TrainConfig
from acclimate.models.devices import activation_gb
from acclimate.models.encoder import Encoder
from acclimate.models.image_text import BATCH_TEXTS, ImageTexts
from acclimate.models.tokens import joined_tokens
from acclimate.training.chunk_budget import chunk_budget
from acclimate.training.gradcache import activation_bytes_per_token
from acclimate.types import Role


class Chunk(NamedTuple):
    """What is computed at once under gradient."""

    places: NDArray[np.int64]
    """Positions among those of the step."""
    memory: int
    """Bytes of its activations."""


class TrainedTexts(Protocol):
    """The texts that `ImageExamples` numbers, and the model that encodes them anew at every step."""

    @property
    def model(self) -> nn.Module:
        """What carries LoRA."""

    def chunks(self, texts_M: NDArray[np.int64]) -> list[Chunk]:
        """Cut the texts of a step, given by their numbers."""

    def forward(self, texts: NDArray[np.int64]) -> Tensor:
        """Unit vectors [n, D] of some texts, under whatever grad mode is on."""

    def encode(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of any texts as documents, by what has been trained so far."""


class TowerTexts:
    """The text tower of the image model.

    Args:
        texts: of the model that carries LoRA.
        words: the texts.
        train: memory for activations.
    """

    def __init__(self, texts: ImageTexts, words: Sequence[str], train: TrainConfig) -> None:
        self.texts, self.words = texts, words
        self.model: nn.Module = texts.tower.model
        config: Any = self.model.config
        per_token = activation_bytes_per_token(config.text_config, 4, checkpointing=False)
        self._memory = per_token * texts.max_tokens
        self._most = max(1, min(BATCH_TEXTS, int(activation_bytes(train, texts.tower.device) // self._memory)))

    def chunks(self, texts_M: NDArray[np.int64]) -> list[Chunk]:
        """Cut the texts of a step, given by their numbers."""
        places = (np.arange(at, min(at + self._most, len(texts_M))) for at in range(0, len(texts_M), self._most))
        return [Chunk(chunk, self._memory * len(chunk)) for chunk in places]

    def forward(self, texts: NDArray[np.int64]) -> Tensor:
        """Unit vectors [n, D] of some texts, under whatever grad mode is on."""
        return self.texts.forward([self.words[text] for text in texts])

    def encode(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of any texts."""
        return self.texts.encode(words)


class ModelTexts:
    """An embedding model of texts.

    Args:
        encoder: carries LoRA that trains.
        words: the texts.
        both_roles: number T + i is text i of T as a query, whose prompt is another one than a document's.
        train: memory for activations.
    """

    def __init__(self, encoder: Encoder, words: Sequence[str], both_roles: bool, train: TrainConfig) -> None:
        self.encoder = encoder
        self.model = encoder.model
        roles: tuple[Role, ...] = ("document", "query") if both_roles else ("document",)
        self._tokens = joined_tokens([encoder.tokenise(words, role) for role in roles])
        self._lengths = self._tokens.lengths
        self._budget = chunk_budget(self.model, encoder.device, train)
        self._per_token = activation_bytes(train, encoder.device) / self._budget.max_tokens

    def chunks(self, texts_M: NDArray[np.int64]) -> list[Chunk]:
        """Cut the texts of a step, given by their numbers."""
        lengths_M = self._lengths[texts_M]
        return [Chunk(it, int(self._per_token * lengths_M[it].sum())) for it in self._budget.chunks(lengths_M)]

    def forward(self, texts: NDArray[np.int64]) -> Tensor:
        """Unit vectors [n, D] of some texts, under whatever grad mode is on."""
        return self.encoder.forward_tokens(self._tokens, texts)

    def encode(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of any texts as documents."""
        return self.encoder.encode(words, "document")


def activation_bytes(train: TrainConfig, device: Any) -> float:
    """Bytes that activations may take."""
    return (train.activation_memory_gb or activation_gb(device)) * 1e9
