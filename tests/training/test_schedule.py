"""The schedule of a training on several tasks: which task, which examples, as functions of the step."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.configs.train import TaskSampling
from acclimate.training.schedule import MixedSchedule, TaskSchedule, numbered_texts
from acclimate.types import Example

SHARED = {"epochs": 2.0, "learning_rate": 1e-3, "warmup_fraction": 0.1}


def mixed_schedule(sizes: list[int], sampling: TaskSampling, seed: int = 3, temperature: float = 2.0) -> MixedSchedule:
    tasks = tuple(
        TaskSchedule(examples=size, batch_size=4, seed=seed + number, **SHARED) for number, size in enumerate(sizes)
    )
    return MixedSchedule(tasks=tasks, sampling=sampling, temperature=temperature, seed=seed, **SHARED)


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@given(SIZES, st.integers(-3, 99))
def test_proportional_shows_every_example_once_in_a_pass(sizes: list[int], seed: int) -> None:
    schedule = mixed_schedule(sizes, "proportional", seed)
    assert schedule.steps == 2 * schedule.steps_per_epoch
    for epoch in range(2):
        seen: Counter[tuple[int, int]] = Counter()
        for step in range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch):
            task, own = schedule.turn(step)
            seen.update((task, int(row)) for row in schedule.tasks[task].batch(own))
        assert seen == {(task, row): 1 for task, size in enumerate(sizes) for row in range(size)}


@given(SIZES, st.sampled_from(["proportional", "round-robin", "temperature"]), st.floats(0.1, 10))
def test_a_task_s_own_steps_follow_each_other(sizes: list[int], sampling: TaskSampling, temperature: float) -> None:
    """So every example of a task is seen once in each of that task's own passes, whatever the sampling."""
    schedule = mixed_schedule(sizes, sampling, temperature=temperature)
    steps = [schedule.turn(step) for step in range(schedule.steps)]
    for task in range(len(sizes)):
        own = [number for which, number in steps if which == task]
        assert own == list(range(len(own)))


@given(SIZES, st.sampled_from(["proportional", "round-robin", "temperature"]), st.integers(0, 99))
def test_a_step_does_not_depend_on_the_steps_before(sizes: list[int], sampling: TaskSampling, seed: int) -> None:
    schedule = mixed_schedule(sizes, sampling)
    steps = list(range(schedule.steps))
    once = [(turn := schedule.turn(step), schedule.tasks[turn[0]].batch(turn[1]).tolist()) for step in steps]
    random.Random(seed).shuffle(steps)
    resumed = mixed_schedule(sizes, sampling)
    for step in steps:
        task, own = resumed.turn(step)
        assert ((task, own), resumed.tasks[task].batch(own).tolist()) == once[step]


def test_round_robin_takes_turns() -> None:
    schedule = mixed_schedule([20, 4, 8], "round-robin")
    assert [schedule.turn(step)[0] for step in range(6)] == [0, 1, 2, 0, 1, 2]
    assert schedule.turn(7) == (1, 2)


@pytest.mark.parametrize(("temperature", "small"), [(1.0, 2), (2.0, 6), (1e6, 11)])
def test_a_higher_temperature_gives_a_small_task_more_steps(temperature: float, small: int) -> None:
    # 80 and 8 examples: 20 and 2 batches. sqrt(80) : sqrt(8) is 3.16 : 1 of 22 steps: 16.7 and 5.3.
    schedule = mixed_schedule([80, 8], "temperature", temperature=temperature)
    counted = Counter(schedule.turn(step)[0] for step in range(schedule.steps_per_epoch))
    assert abs(counted[1] - small) <= 1
    assert counted.total() == 22


def test_repeated_texts_are_told_apart_from_the_examples() -> None:
    texts = numbered_texts([Example("a", "b"), Example("c", "a", ("d",)), Example("c", "d")])
    assert texts.tolist() == [[0, 1], [2, 0], [2, 3]]
    schedule = TaskSchedule(examples=3, batch_size=2, seed=0, texts=texts, **SHARED)
    for step in range(4):
        rows = schedule.batch(step)
        assert not (len(rows) == 2 and set(texts[rows[0]]) & set(texts[rows[1]])), rows
    assert sorted(np.concatenate([schedule.batch(0), schedule.batch(1)]).tolist()) == [0, 1, 2]
