"""The texts of a training as tokens, and the way of a step's gradient into the model.

No text is computed twice in a step: a batch's queries and documents are looked at as one set of texts.

Legend: N training rows of the step, U unique texts, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from acclimate import processes
from acclimate.configs import TrainConfig
from acclimate.core.batching import even_chunks, step_seed
from acclimate.engine.fit import StepResult
from acclimate.engine.gradcache import activation_bytes_per_token, chunked_backward
from acclimate.models.devices import CHUNK_TOKENS, activation_gb, to_device
from acclimate.models.encoder import Encoder
from acclimate.models.tokens import Tokens
from acclimate.types import Role


class StepTexts:
    """The texts of a training, tokenised once, and the way of a step's gradient into the model.

    Args:
        encoder: its trainable parameters get the gradient.
        texts: (role, text); repeated ones are kept once, also across roles where their prompts are the same.
        config: memory, gradient checkpointing.
        seed: of the dropout.
        task: whose prompts are put before the texts; the model's default ones if not given.
        weight: the gradient is that of so many times the loss; the loss is reported without it.
        autocast: entered around every forward pass (bf16 over float32 weights).
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: Iterable[tuple[Role, str]],
        config: TrainConfig,
        seed: int,
        *,
        task: str | None = None,
        weight: float = 1.0,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.encoder, self.seed, self.task, self.weight = encoder, seed, task, weight
        self.autocast = autocast
        role_of: dict[tuple[str, str], Role] = {}
        for role, text in texts:
            role_of.setdefault(self._key(role, text), role)
        by_role: dict[Role, list[str]] = {"query": [], "document": []}
        for (_, text), role in role_of.items():
            by_role[role].append(text)
        ordered = [self._key(role, text) for role in by_role for text in by_role[role]]
        self._number = {key: number for number, key in enumerate(ordered)}
        self.tokens = _concatenate([encoder.tokenise(found, role, task) for role, found in by_role.items() if found])
        self.lengths_N = self.tokens.lengths
        parameter = next(encoder.model.parameters())
        self._dtype = torch.promote_types(parameter.dtype, torch.float32)
        itemsize = parameter.element_size()
        per_token = activation_bytes_per_token(encoder.model.config, itemsize, config.gradient_checkpointing)
        memory_gb = config.activation_memory_gb or activation_gb(encoder.device)
        self.max_tokens = memory_gb * 1e9 / per_token
        # Dropout's random numbers are drawn by chunk: for them the chunks are those of one process.
        self.hands = 1 if config.lora_dropout else processes.count()
        self.chunk_tokens = int(min(CHUNK_TOKENS[encoder.device.type], max(1.0, self.max_tokens)))

    def numbers(self, role: Role, texts: Sequence[str]) -> np.ndarray:
        """The texts' rows in `tokens`."""
        return np.fromiter((self._number[self._key(role, text)] for text in texts), dtype=np.int64, count=len(texts))

    def backward(self, step: int, numbers_U: np.ndarray, loss_of: Callable[[Tensor], Tensor]) -> StepResult:
        """Gradient of `loss_of(vectors [U, D] of the texts)` into the trainable parameters.

        Args:
            step: seeds the dropout.
            numbers_U: unique rows of `tokens`.
            loss_of: called once.
        """
        lengths_U = self.lengths_N[numbers_U]
        chunks = even_chunks(lengths_U, self.chunk_tokens, self.hands)
        self.encoder.model.train()

        def encode(chunk: np.ndarray) -> Tensor:
            with self.autocast():
                return self.encoder.forward_tokens(self.tokens, numbers_U[chunk])

        loss = chunked_backward(
            encode,
            chunks,
            lambda vectors_UD: self.weight * loss_of(vectors_UD),
            torch.zeros(len(numbers_U), self.encoder.dim, dtype=self._dtype, device=self.encoder.device),
            tokens=[int(lengths_U[chunk].sum()) for chunk in chunks],
            max_tokens=self.max_tokens,
            seed_of=lambda chunk: step_seed(self.seed, step, chunk),
            in_step=self.encoder.sharded,
        )
        return StepResult(loss / self.weight, int(lengths_U.sum()))

    def _key(self, role: Role, text: str) -> tuple[str, str]:
        return self.encoder.prompts.prompt(role, self.task), text


def unique(numbers: np.ndarray, device: torch.device) -> tuple[np.ndarray, Tensor]:
    """The numbers once each, and where each of the given ones is among them."""
    numbers_U, place = np.unique(numbers, return_inverse=True)
    return numbers_U, to_device(torch.from_numpy(place), device)


def _concatenate(parts: Sequence[Tokens]) -> Tokens:
    flat = np.concatenate([part.flat for part in parts])
    starts = np.cumsum([0, *(len(part.flat) for part in parts[:-1])])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=True)]
    return Tokens(flat, np.concatenate([np.zeros(1, np.int64), *offsets]))
