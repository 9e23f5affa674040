"""Texts through an encoder, each with one of several adapters that are replaced again and again.

Shapes: N texts of a chunk, K adapters, D vector size.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core import lora
from acclimate.core.batching import chunks_by_tokens
from acclimate.core.gate import Gate
from acclimate.models.chunked import fill
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.layers import Weights
from acclimate.models.tokens import Tokens
from acclimate.models.upper_blocks import UpperBlocks

Numbers = NDArray[np.int64]


class AdaptedTexts:
    """Fixed texts, and LoRA on layers of an encoder.

    Args:
        encoder: the base; stays as it is.
        tokens: of the texts, with their prompts.
        layers: paths of the layers that adapters are for.
        folder: keeps what the blocks below those layers make of the texts.
        label: shown with a progress bar while that is computed.

    Attributes:
        encoder: what the adapters are attached to.
        below: how many blocks are gone through once.

    Raises:
        StorageError: it cannot be kept.
    """

    def __init__(self, encoder: Encoder, tokens: Tokens, layers: Collection[str], folder: Path, label: str) -> None:
        self.tokens = tokens
        self._texts = UpperBlocks(encoder, tokens, layers, folder, label)
        self.encoder, self.below = self._texts.encoder, self._texts.below
        lora.attach(self.encoder.model, [*layers], rank=1)
        self._layers = lora.lora_layers(self.encoder.model)
        slot = lora.gate_slot(self.encoder.model)
        assert slot is not None  # just attached
        self._slot = slot

    def set_weights(self, weights: Weights) -> None:
        """Take K adapters in place of the ones before, on the encoder's device; gradients flow to what made them."""
        for name, layer in self._layers.items():
            layer.set_weights(*weights[name])

    def vectors(self, numbers_N: Numbers, adapter_N: Numbers) -> Tensor:
        """Encode the texts of these numbers: unit vectors [N, D], under whatever grad mode is on.

        Args:
            numbers_N: texts; those of one adapter should be neighbours.
            adapter_N: the adapter of each, 0 to K - 1.
        """
        lengths = self.tokens.lengths[numbers_N].tolist() if self.encoder.packed else None
        adapters = next(iter(self._layers.values())).adapters
        with self._slot.open(Gate(adapters, [((int(adapter), 1.0),) for adapter in adapter_N], lengths)):
            return self._texts.vectors(numbers_N)

    def encode(self, weights: Weights, numbers_N: Numbers) -> NDArray[np.float32]:
        """Encode texts by one adapter without gradient, in chunks: float32 [N, D], unit rows."""
        device = self.encoder.device
        self.set_weights({name: (A.to(device), B.to(device)) for name, (A, B) in weights.items()})
        vectors_ND = np.empty((len(numbers_N), self.encoder.use.dim), np.float32)
        chunks = chunks_by_tokens(self.tokens.lengths[numbers_N], self.encoder.chunk_tokens)
        with torch.inference_mode():
            fill(vectors_ND, chunks, lambda one: self.vectors(numbers_N[one], np.zeros_like(one)), lambda _: None)
        return vectors_ND
