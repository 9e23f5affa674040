"""The scheduler by itself, on a clock of the test's own: no thread, no model."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.serve.errors import ServiceError
from acclimate.serve.scheduler import HEADROOM, SHARE, WAITING, Batch, Job, Limits, Scheduler

RATE = 1000.0
"""Tokens per second of the machine in these tests."""


def job(*tokens: int, deadline: float = 60.0, lane: str = "a", group: str = "x", work: str = "embed") -> Job:
    return Job(work, (work, lane), group, tokens, deadline)


def scheduler(batch_tokens: int = 100, **limits: int) -> Scheduler:
    made = Scheduler(Limits(batch_tokens=batch_tokens, **limits))
    made.measured("embed", int(RATE), 1.0)
    made.measured("rerank", int(RATE), 1.0)
    return made


@dataclass
class Machine:
    """Computes what a scheduler deals out, at `RATE`; time passes only so."""

    scheduler: Scheduler
    now: float = 0.0
    batches: list[Batch] = field(default_factory=list)
    done: dict[int, float] = field(default_factory=dict)
    """id of a job -> when its last row was done."""

    def step(self) -> Batch | None:
        batch = self.scheduler.next_batch(self.now)
        if batch is not None:
            seconds = batch.tokens / RATE
            self.now += seconds
            self.scheduler.finished(batch, seconds)
            self.batches.append(batch)
            self.done.update({id(owner): self.now for owner, _ in batch.rows})
        return batch

    def run(self, until: float = float("inf")) -> None:
        while self.now < until and self.step() is not None:
            pass


def rows_of(batches: list[Batch]) -> list[tuple[int, int]]:
    return [(id(owner), row) for batch in batches for owner, row in batch.rows]


JOBS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 150), min_size=1, max_size=12),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["x", "y", "z"]),
        st.floats(0.0, 0.5),
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=80)
@given(arrivals=JOBS, budget=st.integers(1, 300))
def test_every_row_is_dealt_out_once_and_within_the_budget(
    arrivals: list[tuple[list[int], str, str, float]], budget: int
) -> None:
    machine = Machine(scheduler(budget))
    jobs = []
    for tokens, lane, group, pause_s in arrivals:
        jobs.append(job(*tokens, lane=lane, group=group, deadline=machine.now + 1e6))
        machine.scheduler.admit(jobs[-1], machine.now)
        machine.run(until=machine.now + pause_s)
    machine.run()
    assert Counter(rows_of(machine.batches)) == Counter((id(it), row) for it in jobs for row in range(len(it.tokens)))
    for batch in machine.batches:
        assert batch.tokens == sum(owner.tokens[row] for owner, row in batch.rows)
        assert batch.tokens <= budget or len(batch.rows) == 1
        assert {owner.lane for owner, _ in batch.rows} == {batch.lane}
    queue = machine.scheduler
    assert (queue.waiting_rows, queue.waiting_tokens, queue.wait_s) == (0, 0, 0.0)


@settings(deadline=None, max_examples=60)
@given(
    jobs=st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=6), min_size=1, max_size=30),
    budget=st.integers(1, 200),
)
def test_the_first_in_turn_is_in_every_batch(jobs: list[list[int]], budget: int) -> None:
    """So a row waits for no more batches than there are rows with earlier turns."""
    made = scheduler(budget)
    admitted = [job(*tokens, group=str(number), deadline=1e6) for number, tokens in enumerate(jobs)]
    for one in admitted:
        made.admit(one, 0.0)
    while any(one.waiting for one in admitted):
        first = min(turn for one in admitted for turn in one.waiting.values())
        turns = {(id(one), row): turn for one in admitted for row, turn in one.waiting.items()}
        batch = made.next_batch(0.0)
        assert batch is not None
        assert first in [turns[id(owner), row] for owner, row in batch.rows]
        made.finished(batch, batch.tokens / RATE)


def test_a_small_request_goes_before_the_rest_of_a_large_one() -> None:
    machine = Machine(scheduler(100))
    large, small = job(*[50] * 400), job(10)
    machine.scheduler.admit(large, 0.0)
    machine.step()
    machine.scheduler.admit(small, machine.now)
    machine.step()
    assert machine.done[id(small)] == machine.now  # in the very next batch
    assert large.waiting
    machine.run()
    assert not large.waiting


def test_a_large_request_is_done_in_time_beside_a_stream_of_small_ones() -> None:
    """Small ones, which take 40 % of the machine, come all the time; the large one takes half of its own deadline."""
    machine = Machine(scheduler(100))
    large = job(*[50] * 600, deadline=60.0)  # 30 s of work
    machine.scheduler.admit(large, 0.0)
    waited = []
    for number in itertools.count():
        arrival = number * 0.1
        if arrival > 60.0:
            break
        machine.run(until=arrival)
        machine.now = max(machine.now, arrival)
        small = job(20, 20, deadline=machine.now + 60.0)
        machine.scheduler.admit(small, machine.now)
        waited.append((small, machine.now))
    machine.run()
    assert machine.done[id(large)] <= 60.0
    assert max(machine.done[id(small)] - came for small, came in waited) < 60.0


def test_rows_of_about_one_length_and_of_one_adapter_are_chosen() -> None:
    """The first half of the budget goes by turn; of what follows, the same adapter and length comes first."""
    made = scheduler(100)
    wanted = [job(25, group="x"), job(25, group="x"), job(30, group="y"), job(25, group="y"), job(25, group="x")]
    for one in wanted:
        made.admit(one, 0.0)
    later = [job(25, group="x"), job(25, group="x")]
    for one in later:
        made.admit(one, 0.0)
    batch = made.next_batch(0.0)
    assert batch is not None
    assert [owner for owner, _ in batch.rows] == [wanted[0], wanted[1], wanted[4], later[0]]


def test_rows_of_two_lanes_are_never_together_and_the_earlier_turn_goes_first() -> None:
    machine = Machine(scheduler(100))
    first, second = job(10, lane="a"), job(10, lane="b")
    machine.scheduler.admit(first, 0.0)
    machine.scheduler.admit(second, 0.1)
    machine.run()
    assert [[owner for owner, _ in batch.rows] for batch in machine.batches] == [[first], [second]]


def test_cancelled_and_expired_work_is_dropped() -> None:
    machine = Machine(scheduler(100))
    cancelled, expired, kept = job(*[60] * 5), job(60, deadline=1.0), job(60)
    for one in (cancelled, expired, kept):
        machine.scheduler.admit(one, 0.0)
    machine.scheduler.cancel(cancelled)
    assert machine.scheduler.waiting_tokens == 120
    machine.now = 2.0
    machine.run()
    assert [owner for batch in machine.batches for owner, _ in batch.rows] == [kept]
    assert not expired.open
    assert machine.scheduler.wait_s == 0.0


def test_limits_count_tokens_and_rows() -> None:
    made = scheduler(request_tokens=500, request_rows=8)
    made.limits.check_rows(8)
    with pytest.raises(ServiceError, match="9 texts") as caught:
        made.limits.check_rows(9)
    assert caught.value.status == 413
    with pytest.raises(ServiceError, match="501 tokens") as caught:
        made.admit(job(250, 251), 0.0)
    assert caught.value.status == 413
    with pytest.raises(ServiceError, match=r"500 tokens, which take 0\.5 s") as caught:
        made.admit(job(500, deadline=0.4), 0.0)
    assert caught.value.status == 413
    assert made.waiting_rows == 0


def test_more_than_can_be_done_in_time_is_refused_with_the_time_to_wait() -> None:
    made = scheduler()
    deadline = 10.0
    while True:
        try:
            made.admit(job(100, deadline=deadline), 0.0)
        except ServiceError as error:
            assert error.status == 429
            assert error.retry_after_s == pytest.approx(1.0)
            break
    assert made.wait_s == pytest.approx(WAITING * deadline, abs=0.2)
    with pytest.raises(ServiceError):
        made.check_room(deadline, 0.0)
    made.check_room(60.0, 0.0)  # who can wait longer is let in
    with pytest.raises(ServiceError) as caught:
        made.admit(job(100, deadline=2.0), 0.0)
    assert caught.value.retry_after_s == pytest.approx((10.0 - 2.0) * WAITING, abs=0.2)


def test_a_small_request_is_let_in_beside_a_large_one() -> None:
    """What has its turn later is no reason to refuse it."""
    made = scheduler()
    made.admit(job(*[100] * 400, deadline=60.0), 0.0)  # 40 s of work
    made.admit(job(100, deadline=5.0), 0.0)
    with pytest.raises(ServiceError, match="more is waiting"):
        made.admit(job(*[100] * 30, deadline=5.0), 0.0)


@settings(deadline=None, max_examples=8)
@given(
    sizes=st.lists(st.integers(5, 60), min_size=20, max_size=20),
    deadline_s=st.sampled_from([1.0, 3.0, 10.0]),
)
def test_what_is_accepted_under_overload_is_done_in_time(sizes: list[int], deadline_s: float) -> None:
    """For 15 s ten times as much comes as can be computed, and a batch takes a twentieth of the deadline or less."""
    machine = Machine(scheduler(50))
    accepted: list[Job] = []
    refused_tokens = 0
    clock, numbers = 0.0, itertools.cycle(sizes)
    while clock < 15.0:
        tokens = next(numbers)
        clock += tokens / (10 * RATE)
        machine.run(until=clock)
        machine.now = max(machine.now, clock)
        one = job(tokens, deadline=machine.now + deadline_s)
        try:
            machine.scheduler.admit(one, machine.now)
            accepted.append(one)
        except ServiceError as error:
            assert error.status == 429
            refused_tokens += tokens
        assert machine.scheduler.waiting_tokens <= deadline_s * RATE
    machine.run()
    served = sum(sum(one.tokens) for one in accepted)
    assert refused_tokens > (3 if deadline_s > 5 else 7) * served
    assert all(machine.done[id(one)] <= one.deadline for one in accepted)
    assert served >= 0.95 * RATE * 15.0  # the machine was busy all the time


def test_rates_are_measured_by_kind_and_by_full_batches() -> None:
    made = Scheduler(Limits(batch_tokens=100))
    made.measured("embed", 100, 0.1)
    made.measured("rerank", 100, 1.0)
    made.measured("embed", 5, 0.1)  # a nearly empty batch
    assert made.rates == {"embed": 1000.0, "rerank": 100.0}
    made.measured("embed", 100, 0.2)  # slower: at once
    assert made.rates["embed"] == pytest.approx(500.0)
    made.measured("embed", 100, 0.1)  # faster: by and by
    assert made.rates["embed"] == pytest.approx(180 / 0.26)
    made.admit(job(100, work="rerank"), 0.0)
    assert made.wait_s == 1.0


def test_turns_give_a_job_half_of_the_machine_unless_its_deadline_is_near() -> None:
    patient, hurried = job(100, 100, 100), job(100, 100, 100, deadline=10.0 + 0.4 / HEADROOM)
    scheduler().admit(patient, 10.0)
    assert list(patient.waiting.values()) == pytest.approx([10.0, 10.0 + 0.1 / SHARE, 10.0 + 0.2 / SHARE])
    scheduler().admit(hurried, 10.0)
    assert list(hurried.waiting.values()) == pytest.approx(
        [10.0, 10.0 + 0.1 / SHARE, hurried.deadline - 0.1 / HEADROOM]
    )
