"""The one training loop.

Encoder, reranker and hypernetwork training differ only in what is trainable and in `loss_fn`, which computes one step
and leaves its gradient in the trainable parameters. Nothing here knows what a text is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acclimate import processes
from acclimate.configs import TrainConfig
from acclimate.engine.checkpoint import (
    Checkpoint,
    Progress,
    copy_tensors,
    discard_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from acclimate.engine.metrics_log import MetricsLog
from acclimate.engine.schedule import Course
from acclimate.errors import AcclimateError, Interrupted
from acclimate.progress import Advance, progress, say

MAX_CHECKPOINT_STEPS = 50
"""At most this much work is lost by a kill, where `checkpoint_steps` does not say."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did."""

    loss: float
    tokens: int
    """Real tokens (no padding), each text once."""
    task: str | None = None
    """Whose step it was, where a training has several tasks."""


LossFn = Callable[[int], StepResult]
"""Step (from 0) -> its loss; the gradient is added to the trainable parameters' `.grad`. A function of the step alone:
called again after a kill it does the same thing. With several processes it adds this process's part of the gradient."""

Evaluate = Callable[[int], dict[str, float]]
"""Steps taken (0: the base) -> the current model's scores on dev."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How a training is watched, and which of its moments is kept."""

    evaluate: Evaluate
    metric: str
    """The score by which the best moment is chosen (higher is better)."""
    every: int
    """Steps between evaluations."""


def fit(
    trainable: Mapping[str, nn.Parameter],
    loss_fn: LossFn,
    schedule: Course,
    config: TrainConfig,
    *,
    selection: Selection | None,
    folder: Path,
    metrics: Path,
    identity: str,
) -> Progress:
    """Train, and leave the best tensors in the parameters. A second start goes on from the last checkpoint.

    Args:
        trainable: name -> parameter; everything that changes.
        loss_fn: one step.
        schedule: how many steps, and their learning rates.
        config: the optimiser's settings, patience, steps between checkpoints.
        selection: evaluations on dev; without any the last step is kept.
        folder: for checkpoints.
        metrics: the JSONL file that gets a row per step and per evaluation.
        identity: hash of everything that the training depends on; a checkpoint of another identity is discarded.

    Raises:
        AcclimateError: the loss or the gradient is not finite.
        Interrupted: ctrl-C; the last checkpoint is whole.
        StorageError: a checkpoint cannot be written.
    """
    training = _Training(
        trainable=dict(trainable),
        loss_fn=loss_fn,
        schedule=schedule,
        config=config,
        selection=selection,
        folder=folder,
        log=MetricsLog(metrics, enabled=processes.is_first()),
        state=Progress(identity),
        optimizer=_optimizer(trainable, config),
    )
    try:
        return training.run()
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped at step {training.state.step} of {schedule.steps}",
            fix=f"Start the same command again; it goes on from step {training.saved_step}",
        ) from None


@dataclass(slots=True)
class _Training:
    """One call of `fit`: its arguments, and where it stands."""

    trainable: dict[str, nn.Parameter]
    loss_fn: LossFn
    schedule: Course
    config: TrainConfig
    selection: Selection | None
    folder: Path
    log: MetricsLog
    state: Progress
    optimizer: torch.optim.Optimizer
    best: dict[str, Tensor] = field(default_factory=dict)
    saved_step: int = 0

    def run(self) -> Progress:
        self._resume()
        steps = self.schedule.steps
        every = self.config.checkpoint_steps or max(1, min(MAX_CHECKPOINT_STEPS, steps // 10))
        with self.log, ExitStack() as stack:
            if self.state.step == 0 and self.selection is not None:
                self._evaluate(self.selection)
            advance = stack.enter_context(progress("training", steps, "steps", self.state.step))
            while self.state.step < steps and not self.state.stopped:
                self._step(advance)
                last = self.state.step == steps
                if self.selection is not None and (last or self.state.step % self.selection.every == 0):
                    self._evaluate(self.selection)
                if last or self.state.stopped or self.state.step % every == 0:
                    self._save()
        with torch.no_grad():
            for name, tensor in self.best.items():
                self.trainable[name].copy_(tensor)
        return self.state

    def _step(self, advance: Advance) -> None:
        started = time.perf_counter()
        step = self.state.step
        rate = self.schedule.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        result = self.loss_fn(step)
        self._share_gradients()
        norm = float(nn.utils.clip_grad_norm_(self.trainable.values(), self.config.max_grad_norm))
        self._check_finite("loss", result.loss)
        self._check_finite("gradient", norm)
        self.optimizer.step()
        seconds = time.perf_counter() - started
        self.state.step += 1
        self.state.tokens += result.tokens
        self.state.seconds += seconds
        row = {
            "step": self.state.step,
            "epoch": round(self.state.step / self.schedule.steps_per_epoch, 4),
            **({} if result.task is None else {"task": result.task}),
            "loss": result.loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens": self.state.tokens,
            "tokens_per_s": round(result.tokens / seconds, 1),
        }
        self.log.write(row)
        advance(1, f"{self.state.tokens / self.state.seconds:,.0f} tokens/s, loss {result.loss:.4f}")

    def _evaluate(self, selection: Selection) -> None:
        scores = processes.from_first(selection.evaluate(self.state.step))
        self.log.write({"step": self.state.step, "dev": scores})
        score = scores[selection.metric]
        say(f"step {self.state.step}: dev " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        if self.state.step == 0:
            self.state.base_score = score
        elif self.state.best_score is None or score > self.state.best_score:
            self.state.best_score, self.state.best_step, self.state.stale = score, self.state.step, 0
            self.best = copy_tensors(self.trainable)
        else:
            self.state.stale += 1
            self.state.stopped = self.state.stale >= self.config.patience
            if self.state.stopped:
                say(f"stopped early: no better dev {selection.metric} in {self.state.stale} evaluations")

    def _share_gradients(self) -> None:
        """Sum the processes' parts of the gradient: each has computed some of the step's chunks."""
        for parameter in self.trainable.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        processes.sum_tensors(parameter.grad for parameter in self.trainable.values())

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise AcclimateError(
                f"the {what} is {value} at step {self.state.step + 1} of {self.schedule.steps}",
                fix=f"Try a lower --learning-rate (it was {self.schedule.learning_rate:g}), a higher --temperature, "
                "or --dtype float32.",
            )

    def _resume(self) -> None:
        found = read_checkpoint(self.folder)
        processes.wait()  # until all have read what the first one may delete
        if found is not None and found.progress.identity != self.state.identity:
            say("the settings or the data have changed since the last checkpoint: training starts anew")
            if processes.is_first():
                discard_checkpoints(self.folder)
            found = None
        if found is None:
            self.log.cut(0)
            return
        self.state, self.best, self.saved_step = found.progress, found.best, found.progress.step
        with torch.no_grad():
            for name, tensor in found.trainable.items():
                self.trainable[name].copy_(tensor)
        for entry, value in found.moments.items():
            name, _, key = entry.rpartition(".")
            parameter = self.trainable[name]
            # AdamW keeps its step counter on the CPU, wherever the parameter is.
            self.optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
        self.log.cut(self.state.metrics_bytes)
        say(f"goes on from step {self.state.step} of {self.schedule.steps}")

    def _save(self) -> None:
        if not processes.is_first():
            return
        self.state.metrics_bytes = self.log.size()
        moments: dict[str, Any] = {
            f"{name}.{key}": value
            for name, parameter in self.trainable.items()
            for key, value in self.optimizer.state[parameter].items()
        }
        write_checkpoint(self.folder, Checkpoint(self.state, dict(self.trainable), moments, self.best))
        self.saved_step = self.state.step


def _optimizer(trainable: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    # Norms and biases are not shrunk: their size is no measure of complexity.
    matrices = [parameter for parameter in trainable.values() if parameter.ndim >= 2]
    others = [parameter for parameter in trainable.values() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]])
