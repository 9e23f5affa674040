"""The loop on a toy problem: what it writes, how it stops, and that a resumed run is the undisturbed one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from acclimate.configs import TrainConfig
from acclimate.errors import AcclimateError, Interrupted
from acclimate.training.checkpoint import Progress, read_checkpoint
from acclimate.training.fit import Selection, StepResult, fit, training_numbers
from acclimate.training.schedule import TaskSchedule, auto_learning_rate

CONFIG = TrainConfig(checkpoint_steps=3, patience=100, max_grad_norm=1.0)
SCHEDULE = TaskSchedule(examples=20, batch_size=4, epochs=2.0, seed=3, learning_rate=0.05, warmup_fraction=0.2)


class Regression:
    """Least squares with dropout: a step is a function of its number alone, as `fit` asks for."""

    def __init__(self, schedule: TaskSchedule = SCHEDULE) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(20, 3, generator=generator)
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5]) + 0.3
        self.schedule = schedule
        self.weight = nn.Parameter(torch.zeros(1, 3))
        self.bias = nn.Parameter(torch.zeros(1))
        self.before_step: Callable[[int], None] = lambda _: None

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        return {"weight": self.weight, "bias": self.bias}

    def loss_fn(self, step: int) -> StepResult:
        self.before_step(step)
        rows = torch.from_numpy(self.schedule.batch(step))
        torch.manual_seed(step)
        x = nn.functional.dropout(self.x[rows], 0.2)
        loss = ((x @ self.weight[0] + self.bias - self.y[rows]) ** 2).mean()
        loss.backward()
        return StepResult(float(loss.detach()), tokens=10 * len(rows))

    def evaluate(self, _step: int) -> dict[str, float]:
        with torch.no_grad():
            return {"score": -float(((self.x @ self.weight[0] + self.bias - self.y) ** 2).mean())}

    def fit(self, run: Path, config: TrainConfig = CONFIG, *, every: int = 2, identity: str = "a") -> Progress:
        return fit(
            self.trainable,
            self.loss_fn,
            self.schedule,
            config,
            selection=Selection(evaluate=self.evaluate, metric="score", every=every),
            folder=run / "checkpoints",
            metrics=run / "metrics.jsonl",
            identity=identity,
            dtype="float32",
        )


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_speed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "tokens_per_s"} for row in found]


def test_it_learns_and_logs(tmp_path: Path) -> None:
    problem = Regression()
    state = problem.fit(tmp_path)
    log = rows(tmp_path)
    steps = [row for row in log if "loss" in row]
    dev = [row for row in log if "dev" in row]
    assert [row["step"] for row in steps] == list(range(1, 11))
    assert [row["step"] for row in dev] == [0, 2, 4, 6, 8, 10]
    assert set(steps[0]) == {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_s", "threads"}
    assert steps[-1]["tokens"] == state.tokens == 10 * 20 * 2
    assert steps[4]["epoch"] == 1.0
    assert state.base_score == dev[0]["dev"]["score"]
    assert state.best_score == max(row["dev"]["score"] for row in dev[1:])
    assert state.best_score > state.base_score


def test_the_parameters_are_those_of_the_best_evaluation(tmp_path: Path) -> None:
    problem = Regression()
    seen: dict[int, torch.Tensor] = {}

    def best_at_four(step: int) -> dict[str, float]:
        seen[step] = problem.weight.detach().clone()
        return {"score": -float((step - 4) ** 2)}

    problem.evaluate = best_at_four  # type: ignore[method-assign]
    state = problem.fit(tmp_path, every=1)
    assert state.best_step == 4
    assert torch.equal(problem.weight, seen[4])
    assert not torch.equal(problem.weight, seen[10])


def test_one_step_by_hand(tmp_path: Path) -> None:
    problem = Regression(replace(SCHEDULE, epochs=0.1, warmup_fraction=0.0))
    weight = problem.weight.detach().clone()
    problem.loss_fn(0)
    assert problem.weight.grad is not None
    gradient = problem.weight.grad.clone()
    norm = float(torch.cat([problem.weight.grad.ravel(), problem.bias.grad]).norm())
    problem.fit(tmp_path, every=100)
    (first,) = [row for row in rows(tmp_path) if "loss" in row]
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-6)
    # Adam's first step is the learning rate along the gradient's sign (decay of a zero weight is zero).
    torch.testing.assert_close(problem.weight.detach(), weight - 0.05 * gradient.sign(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("stop", [0, 1, 3, 5, 9])
def test_interrupted_and_started_again_is_the_undisturbed_run(tmp_path: Path, stop: int) -> None:
    undisturbed = Regression()
    undisturbed.fit(tmp_path / "a")

    def interrupt(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    first = Regression()
    first.before_step = interrupt
    with pytest.raises(Interrupted, match=rf"stopped at step {stop} of 10.*from step {stop // 3 * 3}"):
        first.fit(tmp_path / "b")
    second = Regression()
    second.fit(tmp_path / "b")
    for name, parameter in undisturbed.trainable.items():
        assert torch.equal(parameter, second.trainable[name])
    assert without_speed(rows(tmp_path / "a")) == without_speed(rows(tmp_path / "b"))


def test_another_training_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Regression().fit(tmp_path, identity="a")
    problem = Regression()
    problem.fit(tmp_path, identity="b")
    assert "starts anew" in capsys.readouterr().err
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == list(range(1, 11))


def test_started_again_when_finished_does_no_step(tmp_path: Path) -> None:
    first = Regression()
    first.fit(tmp_path)
    again = Regression()
    again.before_step = lambda _: pytest.fail("a step was taken")
    again.fit(tmp_path)
    assert torch.equal(first.weight, again.weight)


def test_early_stop(tmp_path: Path) -> None:
    problem = Regression()
    scores = iter([0.0, 0.1, 0.3, 0.2, 0.25, 0.9])
    problem.evaluate = lambda _: {"score": next(scores)}  # type: ignore[method-assign]
    state = problem.fit(tmp_path, replace(CONFIG, patience=2), every=1)
    assert (state.step, state.best_step, state.stopped) == (4, 2, True)
    found = read_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert found.progress.stopped


def test_a_loss_that_is_not_finite_says_where_and_what_to_try(tmp_path: Path) -> None:
    problem = Regression()
    problem.x[:] = torch.inf
    with pytest.raises(AcclimateError, match=r"loss is nan at step 1 of 10.*learning-rate"):
        problem.fit(tmp_path, every=100)


def test_another_number_of_threads_is_logged_kept_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = [4, 4, 2, 2, 2, 2, 2]
    monkeypatch.setattr("acclimate.training.fit.adjust_threads", lambda: numbers.pop(0) if len(numbers) > 1 else 3)

    def interrupted(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    problem = Regression()
    problem.before_step = interrupted
    with pytest.raises(Interrupted):
        problem.fit(tmp_path, every=100)
    found = read_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert (found.progress.step, found.progress.threads, found.progress.dtype) == (3, 2, "float32")
    numbers.clear()
    capsys.readouterr()
    state = Regression().fit(tmp_path, every=100)
    said = capsys.readouterr().err
    assert "CPU threads: 3, not 2 as before the stop. Sums are rounded in another order." in said
    assert [row["threads"] for row in rows(tmp_path) if "loss" in row] == [4, 4, 2] + [3] * 7
    assert state.threads == 3
    assert training_numbers(state, SCHEDULE, problem.trainable, 4)["threads"] == 3


def test_without_dev_the_last_step_is_kept(tmp_path: Path) -> None:
    problem = Regression()
    state = fit(
        problem.trainable,
        problem.loss_fn,
        SCHEDULE,
        CONFIG,
        selection=None,
        folder=tmp_path / "checkpoints",
        metrics=tmp_path / "metrics.jsonl",
        identity="a",
        dtype="float32",
    )
    found = read_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert state.best_step is None
    assert torch.equal(problem.weight, found.trainable["weight"])


def test_every_example_once_in_each_pass() -> None:
    schedule = TaskSchedule(examples=13, batch_size=4, epochs=3, seed=1, learning_rate=1.0, warmup_fraction=0.1)
    assert schedule.steps_per_epoch == 4
    for epoch in range(3):
        batches = [schedule.batch(step) for step in range(4 * epoch, 4 * epoch + 4)]
        assert sorted(map(len, batches)) == [3, 3, 3, 4]
        assert sorted(np.concatenate(batches)) == list(range(13))
    assert not np.array_equal(schedule.batch(0), schedule.batch(4))


def test_the_learning_rate_by_hand() -> None:
    schedule = TaskSchedule(examples=10, batch_size=1, epochs=1, seed=0, learning_rate=1.0, warmup_fraction=0.2)
    rates = [schedule.rate(step) for step in range(10)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[6] == pytest.approx(0.5)  # half of the eight steps of the cosine
    assert 0 < rates[9] < 0.05


def test_auto_learning_rate() -> None:
    """By the transformer's parameters and layers: a vocabulary of any size changes nothing."""
    minilm, e5_small, qwen3 = (10_600_000, 6), (21_300_000, 12), (440_000_000, 28)
    assert auto_learning_rate(*minilm, full=False) == auto_learning_rate(10_600_000, 0, full=False) == 4e-3
    assert auto_learning_rate(*e5_small, full=False) == pytest.approx(2e-3)
    assert auto_learning_rate(*minilm, full=False, highest=2e-3) == 2e-3
    assert auto_learning_rate(60_000_000, 12, full=False) == pytest.approx(1.5e-3)
    assert auto_learning_rate(*qwen3, full=False) == pytest.approx(2e-4, rel=0.03)
    assert auto_learning_rate(8_000_000_000, 36, full=False) == 1e-4
    assert auto_learning_rate(*minilm, full=True) == pytest.approx(4e-4)
