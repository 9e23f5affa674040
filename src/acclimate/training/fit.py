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
from acclimate.core.sharding import is_sharded, part_like, whole, whole_tensors
from acclimate.cpu import adjust_threads
from acclimate.errors import AcclimateError, Interrupted
from acclimate.evaluation.dev import Evaluate
from acclimate.progress import Advance, progress, say
from acclimate.training.checkpoint import (
    Checkpoint,
    Progress,
    copy_tensors,
    discard_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from acclimate.training.metrics_log import MetricsLog
from acclimate.training.reports import TrainingNumbers
from acclimate.training.schedule import Schedule

MAX_CHECKPOINT_STEPS = 50
"""Most steps that a kill can cost, where `checkpoint_steps` is not given."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one step."""

    loss: float | Tensor
    """On a GPU a tensor, so that nothing waits for it."""
    tokens: int
    """Real tokens (no padding), each text once."""
    task: str | None = None
    """The task that the step belongs to, where a training has several."""
    metrics: dict[str, float | Tensor] = field(default_factory=dict)
    """Further columns of metrics.jsonl."""


LossFn = Callable[[int], StepResult]
"""Step (from 0) -> its result; adds the gradient to the trainable parameters' `.grad`. A function of the step alone, so
that it does the same when it is called again after a kill. With several processes it adds this process's part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How a training is evaluated, and by which score its best step is chosen."""

    evaluate: Evaluate
    metric: str
    """The score by which the best step is chosen (higher is better)."""
    every: int
    """Steps between evaluations."""


def fit(
    trainable: Mapping[str, nn.Parameter],
    loss_fn: LossFn,
    schedule: Schedule,
    config: TrainConfig,
    *,
    selection: Selection | None,
    folder: Path,
    metrics: Path,
    identity: str,
    dtype: str,
    before_step: Callable[[int], None] | None = None,
) -> Progress:
    """Train, and leave the best values in the parameters. A second start resumes from the last checkpoint.

    Args:
        trainable: name -> parameter; everything that changes.
        loss_fn: one step.
        schedule: how many steps, and their learning rates.
        config: the optimiser's settings, patience, steps between checkpoints.
        selection: evaluations on dev; if None, the last step is kept.
        folder: gets the checkpoints.
        metrics: the JSONL file that gets a row per step and per evaluation.
        identity: hash of everything that the training depends on; a checkpoint of another identity is discarded.
        dtype: the number format that `loss_fn` computes in, for the checkpoint (`setup.training_dtype`).
        before_step: called before every step (from 0); its time is not counted as the step's.

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
        log=MetricsLog(metrics, enabled=processes.is_main()),
        state=Progress(identity, dtype=dtype),
        optimizer=_optimizer(trainable, config),
        before_step=before_step or (lambda _: None),
    )
    try:
        return training.run()
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped at step {training.state.step} of {schedule.steps}",
            fix=f"Start the same command again; it goes on from step {training.saved_step}",
        ) from None


def training_numbers(
    state: Progress, schedule: Schedule, trainable: Mapping[str, nn.Parameter], parameters: int
) -> TrainingNumbers:
    """The numbers that a report gives for every training.

    Args:
        state: what `fit` returned.
        schedule: what `fit` was given.
        trainable: what `fit` was given.
        parameters: number of parameters of the whole model, trainable ones included.
    """
    return {
        "tokens": state.tokens,
        "tokens_per_s": round(state.tokens / max(state.seconds, 1e-9), 1),
        "trainable": sum(parameter.numel() for parameter in trainable.values()),
        "total": parameters,
        "steps": state.step,
        "planned_steps": schedule.steps,
        "best_step": state.best_step,
        "best_score": state.best_score,
        "evaluations": state.evaluations,
        "learning_rate": schedule.learning_rate,
        "processes": processes.count(),
        "dtype": state.dtype,
        "threads": state.threads or None,
        "step_s": round(state.seconds, 3),
    }


@dataclass(frozen=True, slots=True)
class _Taken:
    """A step's numbers, which a GPU may still be computing."""

    started: float
    step: int
    rate: float
    result: StepResult
    norm: Tensor
    tokens: int
    """Tokens of all steps up to this one."""


@dataclass(slots=True)
class _Training:
    """One call of `fit`: its arguments and its state."""

    trainable: dict[str, nn.Parameter]
    loss_fn: LossFn
    schedule: Schedule
    config: TrainConfig
    selection: Selection | None
    folder: Path
    log: MetricsLog
    state: Progress
    optimizer: torch.optim.Optimizer
    before_step: Callable[[int], None]
    best: dict[str, Tensor] = field(default_factory=dict)
    saved_step: int = 0
    taken: _Taken | None = None
    """The last step, while its numbers have not been read."""
    logged: float = 0.0
    advance: Advance = field(default=lambda *_: None)

    def run(self) -> Progress:
        self._resume()
        steps = self.schedule.steps
        every = self.config.checkpoint_steps or max(1, min(MAX_CHECKPOINT_STEPS, steps // 10))
        with self.log, ExitStack() as stack:
            if self.state.step == 0 and self.selection is not None:
                self._evaluate(self.selection)
            self.advance = stack.enter_context(progress("training", steps, "steps", self.state.step))
            while self.state.step < steps and not self.state.stopped:
                self._step()
                last = self.state.step == steps
                if self.selection is not None and (last or self.state.step % self.selection.every == 0):
                    self._evaluate(self.selection)
                if last or self.state.stopped or self.state.step % every == 0:
                    self._save()
        with torch.no_grad():
            for name, tensor in self.best.items():
                self.trainable[name].copy_(tensor)
        return self.state

    def _step(self) -> None:
        self.before_step(self.state.step)
        self._count_threads()
        started = time.perf_counter()
        step = self.state.step
        rate = self.schedule.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        result = self.loss_fn(step)
        self._share_gradients()
        norm = whole(nn.utils.clip_grad_norm_(self.trainable.values(), self.config.max_grad_norm))
        self.optimizer.step()
        self.state.step += 1
        self.state.tokens += result.tokens
        taken, self.taken = self.taken, _Taken(started, self.state.step, rate, result, norm, self.state.tokens)
        if taken is not None:
            self._log(taken)
        if not norm.is_cuda:
            self._log_rest()

    def _count_threads(self) -> None:
        """Let torch have as many threads as cores are free, if it computes on a CPU."""
        if next(iter(self.trainable.values())).device.type == "cpu":
            self.state.threads = adjust_threads()

    def _log(self, taken: _Taken) -> None:
        """Read and log a step's numbers. This waits for a GPU, so there it happens one step later."""
        loss, norm = float(taken.result.loss), float(taken.norm)
        self._check_finite("loss", loss, taken.step)
        self._check_finite("gradient", norm, taken.step)
        now = time.perf_counter()
        seconds = now - max(taken.started, self.logged)
        self.logged = now
        self.state.seconds += seconds
        row = {
            "step": taken.step,
            "epoch": round(taken.step / self.schedule.steps_per_epoch, 4),
            **({} if taken.result.task is None else {"task": taken.result.task}),
            "loss": loss,
            "learning_rate": taken.rate,
            "grad_norm": norm,
            "tokens": taken.tokens,
            "tokens_per_s": round(taken.result.tokens / seconds, 1),
            **({"threads": self.state.threads} if self.state.threads else {}),
            **{name: float(value) for name, value in taken.result.metrics.items()},
        }
        self.log.write(row)
        self.advance(1, f"{taken.tokens / self.state.seconds:,.0f} tokens/s, loss {loss:.4f}")

    def _log_rest(self) -> None:
        """Log the last step: nothing is saved or evaluated before its numbers have been checked."""
        if self.taken is not None:
            self._log(self.taken)
        self.taken = None

    def _evaluate(self, selection: Selection) -> None:
        self._log_rest()
        scores = processes.from_main(selection.evaluate(self.state.step))
        self.log.write({"step": self.state.step, "dev": scores})
        score = scores[selection.metric]
        say(f"step {self.state.step}: dev " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        if self.state.step == 0:
            self.state.base_score = score
            return
        self.state.evaluations += 1
        if self.state.best_score is None or score > self.state.best_score:
            self.state.best_score, self.state.best_step, self.state.stale = score, self.state.step, 0
            self.best = copy_tensors(self.trainable)
        else:
            self.state.stale += 1
            self.state.stopped = self.state.stale >= self.config.patience
            if self.state.stopped:
                say(f"stopped early: no better dev {selection.metric} in {self.state.stale} evaluations")

    def _share_gradients(self) -> None:
        """Sum the processes' parts of the gradient: each has computed some of the step's chunks.

        Gradients of sharded weights are summed already, by the backward pass, which leaves each process its part.
        """
        for parameter in self.trainable.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        processes.sum_tensors(parameter.grad for parameter in self.trainable.values() if not is_sharded(parameter))

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise AcclimateError(
                f"the {what} is {value} at step {step} of {self.schedule.steps}",
                fix=f"Try a lower --learning-rate (it was {self.schedule.learning_rate:g}), a higher --temperature, "
                "or --dtype float32.",
            )

    def _resume(self) -> None:
        checkpoint = read_checkpoint(self.folder)
        processes.barrier()  # until all have read what the first one may delete
        if checkpoint is not None and checkpoint.progress.identity != self.state.identity:
            say("the settings or the data have changed since the last checkpoint: training starts anew")
            if processes.is_main():
                discard_checkpoints(self.folder)
            checkpoint = None
        if checkpoint is None:
            self.log.cut(0)
            return
        self.state, self.saved_step = checkpoint.progress, checkpoint.progress.step
        self.best = {name: part_like(tensor, self.trainable[name]) for name, tensor in checkpoint.best.items()}
        with torch.no_grad():
            for name, tensor in checkpoint.trainable.items():
                self.trainable[name].copy_(part_like(tensor, self.trainable[name]))
        for entry, value in checkpoint.moments.items():
            name, _, key = entry.rpartition(".")
            parameter = self.trainable[name]
            # AdamW keeps its step counter on the CPU, wherever the parameter is; the fused one beside the parameter.
            if key == "step":
                placed = value.to(parameter.device) if self.optimizer.defaults["fused"] else value
            else:
                placed = part_like(value, parameter)
            self.optimizer.state[parameter][key] = placed
        self.log.cut(self.state.metrics_bytes)
        say(f"goes on from step {self.state.step} of {self.schedule.steps}")
        before = self.state.threads
        self._count_threads()
        if before not in (0, self.state.threads):
            now = self.state.threads
            say(f"CPU threads: {now}, not {before} as before the stop. Sums are rounded in another order.")

    def _save(self) -> None:
        """Save whole tensors, not the processes' parts, so that any number of processes can resume from them."""
        self._log_rest()
        moments: dict[str, Any] = {
            f"{name}.{key}": value
            for name, parameter in self.trainable.items()
            for key, value in self.optimizer.state[parameter].items()
        }
        self.state.metrics_bytes = self.log.size()
        first = processes.is_main()
        wholes = [whole_tensors(tensors, keep=first) for tensors in (self.trainable, moments, self.best)]
        if first:
            write_checkpoint(self.folder, Checkpoint(self.state, *wholes))
        self.saved_step = self.state.step


def _optimizer(trainable: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    # Norms and biases are not shrunk: their size is no measure of complexity.
    matrices = [parameter for parameter in trainable.values() if parameter.ndim >= 2]
    others = [parameter for parameter in trainable.values() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = all(parameter.is_cuda for parameter in trainable.values()) or None  # one kernel instead of dozens
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=fused)
