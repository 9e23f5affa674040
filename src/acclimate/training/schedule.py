"""What a training step does, as pure functions of the step number: its task, its examples, its learning rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from acclimate.configs.train import TaskSampling
from acclimate.core.batching import epoch_order, spread
from acclimate.core.same_text import text_id
from acclimate.core.task_sampling import steps_of_tasks, turns
from acclimate.types import Example

HIGHEST_LORA_RATE = 4e-3
"""Peak learning rate of LoRA for the smallest models; measured on MiniLM (docs/results.md)."""
SHALLOW = 6
"""Layers up to which it holds, MiniLM's. The changes of the layers add up, so twice as many get half the rate:
measured on multilingual-e5-small (docs/results.md)."""
HIGHEST_RERANKER_RATE = 2e-3
"""The same for rerankers: a cross-encoder has a head to learn; higher rates were not measured."""
RATE_TIMES_PARAMETERS = 9e4
"""The rate of larger models is inverse to the size of their transformer: 2e-4 at 440M, that of Qwen3-Embedding-0.6B."""
LOWEST_LORA_RATE = 1e-4
FULL_SHARE = 1 / 10
"""Factor of the rate when all weights are trained: all move at once, so each has to move less. 4e-4 for a small model
(docs/results.md; larger models are not measured)."""


def auto_learning_rate(parameters: int, layers: int, *, full: bool, highest: float = HIGHEST_LORA_RATE) -> float:
    """Choose the peak learning rate by the size and the depth of what it acts on.

    A model's size says little: of multilingual-e5-small's 118M parameters, 96M are the vectors of its 250,000 words.

    Args:
        parameters: number of parameters of the base's transformer, without its embeddings (`transformer_size`).
        layers: of the transformer.
        full: whether all weights are trained, instead of an adapter.
        highest: rate of an adapter for the smallest models.
    """
    highest *= SHALLOW / max(SHALLOW, layers)
    rate = max(min(highest, RATE_TIMES_PARAMETERS / parameters), LOWEST_LORA_RATE)
    return rate * (FULL_SHARE if full else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(ABC):
    """How long a training is, and its learning rate. Everything is fixed before the first step."""

    epochs: float
    seed: int
    learning_rate: float
    """Peak."""
    warmup_fraction: float

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int: ...

    @property
    def steps(self) -> int:
        return max(1, math.ceil(self.epochs * self.steps_per_epoch))

    def rate(self, step: int) -> float:
        """Learning rate of a step (from 0): rises linearly to the peak, then falls as half a cosine to almost zero."""
        warmup = math.ceil(self.warmup_fraction * self.steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSchedule(Schedule):
    """The schedule of a training on one task: which examples each step has."""

    examples: int
    batch_size: int
    """Largest number of examples in a step; batches of a pass differ by one example at most."""
    texts: NDArray[np.int64] | None = field(default=None, compare=False)
    """[N, K] numbers of each example's texts: none is twice in a batch where that can be (`core.batching.spread`)."""
    shuffled: bool = True
    """False: the batches are the examples in their own order, `batch_size` at a time."""
    _passes: dict[int, list[NDArray[np.int64]]] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.examples / self.batch_size)

    def epoch(self, step: int) -> int:
        """The pass that a step (from 0) belongs to."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices of the examples of a step (from 0): a function of (seed, step), every example once in each pass."""
        if not self.shuffled:
            first = step % self.steps_per_epoch * self.batch_size
            return np.arange(first, min(first + self.batch_size, self.examples), dtype=np.int64)
        epoch = self.epoch(step)
        if epoch not in self._passes:
            self._passes.clear()
            self._passes[epoch] = self._pass(epoch)
        return self._passes[epoch][step % self.steps_per_epoch]

    def _pass(self, epoch: int) -> list[NDArray[np.int64]]:
        order = epoch_order(self.examples, self.seed, epoch)
        batches = np.array_split(order, self.steps_per_epoch)
        return batches if self.texts is None else spread(order, self.texts, [len(batch) for batch in batches])


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSchedule(Schedule):
    """The schedule of a training on several tasks: each step is one task's, and follows that task's own schedule."""

    tasks: tuple[TaskSchedule, ...]
    sampling: TaskSampling
    temperature: float
    """Temperature of the sampling (`core.task_sampling`)."""
    _passes: dict[int, NDArray[np.int64]] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        return sum(task.steps_per_epoch for task in self.tasks)

    def turn(self, step: int) -> tuple[int, int]:
        """The task of a step, and that task's own step (both from 0): a function of (seed, step)."""
        if self.sampling == "round-robin":
            return step % len(self.tasks), step // len(self.tasks)
        epoch, offset = divmod(step, self.steps_per_epoch)
        counts = steps_of_tasks(
            [task.steps_per_epoch for task in self.tasks],
            [task.examples for task in self.tasks],
            self.temperature if self.sampling == "temperature" else 1.0,
        )
        if epoch not in self._passes:
            self._passes.clear()
            self._passes[epoch] = turns(counts, self.seed, epoch)
        order = self._passes[epoch]
        task = int(order[offset])
        return task, epoch * counts[task] + int((order[:offset] == task).sum())


def numbered_texts(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Number each example's anchor and positive, [N, 2]; texts that are the same have equal numbers,
    whatever their role.

    Negatives are not numbered: a document may be one example's negative and another's positive in one batch. It is
    computed once, and takes no candidate away from other rows, as a repeated anchor or positive would.
    """
    number: dict[int, int] = {}
    pairs = [
        [number.setdefault(text_id(text), len(number)) for text in (example.anchor, example.positive)]
        for example in examples
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)
