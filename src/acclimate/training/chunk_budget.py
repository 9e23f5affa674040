"""How many tokens are computed at once under gradient, and how a step's texts are cut accordingly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from acclimate import processes
from acclimate.configs import TrainConfig
from acclimate.core.batching import even_chunks
from acclimate.models.devices import CHUNK_TOKENS, activation_gb
from acclimate.training.gradcache import activation_bytes_per_token


@dataclass(frozen=True, slots=True)
class ChunkBudget:
    """The tokens that one process computes at a time. The same for encoders and rerankers."""

    chunk_tokens: int
    """Tokens of one chunk at most."""
    max_tokens: float
    """Tokens whose activations fit in memory together (`gradcache.chunked_backward`)."""
    shares: int
    """Processes that the chunks are cut for."""

    def chunks(self, lengths_N: np.ndarray) -> list[np.ndarray]:
        """Cut texts, given by their numbers of tokens, into chunks: positions 0..N-1, each in exactly one chunk."""
        return even_chunks(lengths_N, self.chunk_tokens, self.shares)


def chunk_budget(model: Any, device: torch.device, config: TrainConfig, frozen_blocks: int = 0) -> ChunkBudget:
    """Work out the budget of a training.

    Args:
        model: a transformers model, on its device and in its dtype.
        device: where it computes.
        config: memory for activations, gradient checkpointing, dropout.
        frozen_blocks: the first blocks, where they are not gone through.
    """
    itemsize = next(model.parameters()).element_size()
    trained = 1 - frozen_blocks / int(model.config.num_hidden_layers)
    per_token = trained * activation_bytes_per_token(model.config, itemsize, config.gradient_checkpointing)
    max_tokens = (config.activation_memory_gb or activation_gb(device)) * 1e9 / per_token
    return ChunkBudget(
        chunk_tokens=int(min(CHUNK_TOKENS[device.type], max(1.0, max_tokens))),
        max_tokens=max_tokens,
        # Dropout's random numbers are drawn chunk by chunk: with it, the chunks are those of one process.
        shares=1 if config.lora_dropout else processes.count(),
    )
