"""What a training step is, as pure functions of the step number: its learning rate, its examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from acclimate.core.batching import epoch_order

LORA_RATE = 2e-3
"""Peak learning rate of LoRA for models up to `SMALL_MODEL` parameters; measured on MiniLM (1e-3 learns less)."""
LOWEST_LORA_RATE = 1e-4
SMALL_MODEL = 60e6
FULL_SHARE = 1 / 40
"""All weights move at once when everything is trained, so each has to move less: 5e-5 for a small model."""


def auto_learning_rate(parameters: int, full: bool) -> float:
    """Peak learning rate by size of the base model: inverse to it above 60M, so 2e-4 at 600M.

    Args:
        parameters: of the base model.
        full: all weights are trained, not an adapter.
    """
    rate = max(LORA_RATE * min(1.0, SMALL_MODEL / parameters), LOWEST_LORA_RATE)
    return rate * (FULL_SHARE if full else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The whole course of a training. Everything in it is decided before the first step."""

    examples: int
    batch_size: int
    """Largest number of examples in a step; batches of a pass differ by one example at most."""
    epochs: float
    seed: int
    learning_rate: float
    """Peak."""
    warmup_fraction: float

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.examples / self.batch_size)

    @property
    def steps(self) -> int:
        return max(1, math.ceil(self.epochs * self.steps_per_epoch))

    def epoch(self, step: int) -> int:
        """The pass that a step (from 0) belongs to."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> np.ndarray:
        """Indices of the examples of a step (from 0): a function of (seed, step), every example once in each pass."""
        order = epoch_order(self.examples, self.seed, self.epoch(step))
        return np.array_split(order, self.steps_per_epoch)[step % self.steps_per_epoch]

    def rate(self, step: int) -> float:
        """Learning rate of a step (from 0): a line up to the peak, then half a cosine down to (not quite) zero."""
        warmup = math.ceil(self.warmup_fraction * self.steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))
