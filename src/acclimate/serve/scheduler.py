"""Scheduler: which rows are computed together, and which requests are refused. It knows neither torch nor asyncio, and
has no clock: every call says what time it is, in seconds.

A request is a job of rows. Each row has a turn, fixed when the job comes: the moment at which it would be computed if
the job had half of the machine, or, where that is earlier, the last moment at which the job can still meet its
deadline. Batches are filled in the order of the turns. So the rows of a large job give way to a small one that comes
later, and no row waits for ever: what comes after a row's turn has a later one.

What a job costs is counted in seconds: its tokens, over the measured rate of its kind of work. A job that could not be
done within its deadline, behind all that has its turn before, is refused.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from acclimate.serve.errors import ServiceError

WAITING = 1 / 3
"""Share of the time until a job's deadline that what goes before it may take. When an overload begins the machine may
turn out two or three times as slow as it was measured: to refuse requests takes time too."""
HEADROOM = 0.8
"""Share of that time that a job and what goes before it may take together."""
SHARE = 0.5
"""Share of the machine by which a job's rows get their turns; the rest is for what comes later."""
BUCKET_S = 0.25
"""Waiting work is summed up by turns in steps of so many seconds: to refuse a request has to be quick."""
LOOKAHEAD = 2
"""Batches' worth of waiting rows among which those that fit a batch best are looked for."""
FIRST_RATE = 1000.0
"""Tokens per second, before anything was measured."""
FULL_ENOUGH = 0.25
"""Fill of a batch from which on it says how fast full ones are."""
DECAY = 0.8
"""Weight of the batches before, when a rate is measured anew."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for, and how batches are cut."""

    request_rows: int = 2048
    """Texts of one request."""
    request_tokens: int = 300_000
    """Tokens of one request, as the model reads them."""
    batch_tokens: int = 2048
    """Tokens of one batch; a single longer row is a batch of its own. Small batches answer soon, large ones cost less
    per token."""

    def check_rows(self, count: int) -> None:
        """Refuse more rows than a request may have, before anything is tokenised.

        Raises:
            ServiceError: 413.
        """
        if count > self.request_rows:
            raise ServiceError(
                f"the request has {count} texts",
                status=413,
                field="input",
                possible=f"up to {self.request_rows}",
                fix="Send them in several requests.",
            )


@dataclass(slots=True, eq=False)
class Job:
    """One request: rows that are computed in any order, maybe in several batches."""

    work: str
    """Kind of work, whose rate is measured by itself."""
    lane: Hashable
    """Only rows of one lane can be computed together."""
    group: Hashable
    """Rows of one group are computed together at least cost: those of one adapter."""
    tokens: Sequence[int]
    """Tokens of each row."""
    deadline: float
    """When the answer is worth nothing any more."""
    payload: Any = None
    """What the caller needs for computing it."""
    arrived: float = 0.0
    open: bool = False
    """Whether its rows are still wanted."""
    waiting: dict[int, float] = field(default_factory=dict)
    """Row -> its turn, of the rows that are not in a batch yet."""


class Batch(NamedTuple):
    """Rows that are computed together."""

    work: str
    lane: Hashable
    rows: list[tuple[Job, int]]
    tokens: int
    waited_s: float
    """How long the oldest of them has waited."""


class _Entry(NamedTuple):
    """A waiting row in its lane; compared by turn, then by the order in which rows came."""

    turn: float
    number: int
    row: int
    job: Job

    @property
    def tokens(self) -> int:
        return self.job.tokens[self.row]


class Scheduler:
    """Queues jobs and deals out batches. It is not locked: whoever shares it between threads does that.

    Attributes:
        limits: of requests and batches.
        waiting_rows: rows that are in no batch yet.
        waiting_tokens: their tokens.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting_rows = 0
        self.waiting_tokens = 0
        self._lanes: dict[Hashable, list[_Entry]] = {}
        self._count = 0
        self._tokens: dict[str, dict[int, int]] = {}
        """Kind of work -> bucket of turns -> tokens of the rows that wait in it."""
        self._computing: tuple[str, int] | None = None
        """Kind of work and tokens of the batch that was dealt out last, until it is finished."""
        self._measured: dict[str, tuple[float, float]] = {}
        """Kind of work -> tokens and seconds, older batches with less weight."""

    @property
    def rates(self) -> dict[str, float]:
        """Kind of work -> tokens per second, of what was measured."""
        return {work: tokens / seconds for work, (tokens, seconds) in self._measured.items()}

    @property
    def wait_s(self) -> float:
        """Seconds that all waiting and computing rows take."""
        return self._ahead_s(math.inf)

    def check_room(self, deadline: float, now: float) -> None:
        """Refuse where no row at all could be done in time: what is cheap to know before a text is tokenised.

        Raises:
            ServiceError: 429.
        """
        allowed_s = WAITING * (deadline - now)
        if self.wait_s > allowed_s and (late_s := self._ahead_s(now) - allowed_s) > 0:
            raise _busy(late_s)

    def admit(self, job: Job, now: float) -> None:
        """Queue a job.

        Args:
            job: its `tokens` have one or more rows.
            now: the time.

        Raises:
            ServiceError: 413 too many tokens for one request, or for its deadline; 429 too much waits already.
        """
        total, limit = sum(job.tokens), self.limits.request_tokens
        if total > limit:
            raise ServiceError(
                f"the request has {total} tokens",
                status=413,
                field="input",
                possible=f"up to {limit}",
                fix="Send the texts in several requests.",
            )
        rate, allowed_s = self._rate(job.work), HEADROOM * (job.deadline - now)
        own_s = total / rate
        if own_s > allowed_s:
            raise ServiceError(
                f"the request has {total} tokens, which take {own_s:.1f} s, and {job.deadline - now:.1f} s are left",
                status=413,
                field="input",
                possible=f"about {max(0, int(allowed_s * rate))} tokens",
                fix="Send the texts in several requests.",
            )
        turns = self._turns(job, own_s, rate, now)
        room_s = min(WAITING * (job.deadline - now), allowed_s - own_s)
        if self.wait_s > room_s and (late_s := self._ahead_s(turns[-1]) - room_s) > 0:
            raise _busy(late_s)
        job.arrived, job.open = now, True
        lane = self._lanes.setdefault(job.lane, [])
        for row, turn in enumerate(turns):
            job.waiting[row] = turn
            heapq.heappush(lane, _Entry(turn, self._count, row, job))
            self._count += 1
            self._count_row(job, row, turn, 1)

    def cancel(self, job: Job) -> None:
        """Drop what is left of a job: nobody waits for it any more."""
        job.open = False
        for row, turn in job.waiting.items():
            self._count_row(job, row, turn, -1)
        job.waiting.clear()

    def next_batch(self, now: float) -> Batch | None:
        """Deal out the rows that are computed next; None where nothing waits.

        Jobs whose deadline has passed are dropped on the way. The first row in turn is always among them, so that none
        waits for ever; half of the budget goes by turn alone, the rest to rows of the same adapters and lengths.
        """
        heads = {lane: head for lane, entries in self._lanes.items() if (head := self._head(entries, now))}
        self._lanes = {lane: self._lanes[lane] for lane in heads}
        if not heads:
            return None
        lane = min(heads, key=heads.__getitem__)
        entries = self._fill(self._lanes[lane], now)
        if not self._lanes[lane]:
            del self._lanes[lane]
        for entry in entries:
            self._count_row(entry.job, entry.row, entry.job.waiting.pop(entry.row), -1)
        work, tokens = entries[0].job.work, sum(entry.tokens for entry in entries)
        self._computing = (work, tokens)
        waited_s = now - min(entry.job.arrived for entry in entries)
        return Batch(work, lane, [(entry.job, entry.row) for entry in entries], tokens, waited_s)

    def finished(self, batch: Batch, seconds: float) -> None:
        """Learn how long a batch took; it is computed no longer."""
        self._computing = None
        self.measured(batch.work, batch.tokens, seconds)

    def measured(self, work: str, tokens: int, seconds: float) -> None:
        """Take in how fast work was done: nearly empty batches, which are slow, say little about full ones.

        A batch that was slower than those before counts alone: to accept too little for a moment does less harm.
        """
        before = self._measured.get(work)
        if before is None:
            self._measured[work] = (tokens, max(seconds, 1e-6))
        elif tokens >= FULL_ENOUGH * self.limits.batch_tokens:
            slower = tokens * before[1] < before[0] * seconds
            kept = 0.0 if slower else DECAY
            self._measured[work] = (kept * before[0] + tokens, kept * before[1] + seconds)

    def _rate(self, work: str) -> float:
        tokens, seconds = self._measured.get(work, (FIRST_RATE, 1.0))
        return tokens / seconds

    def _turns(self, job: Job, own_s: float, rate: float, now: float) -> list[float]:
        """When each row is due; ascending, and never before now."""
        before = [tokens / rate for tokens in accumulate(job.tokens, initial=0)]
        last_start = job.deadline - own_s / HEADROOM
        return [min(now + done / SHARE, last_start + done / HEADROOM) for done in before[:-1]]

    def _ahead_s(self, turn: float) -> float:
        """Seconds of all that is computed now or has its turn up to this one."""
        last = turn / BUCKET_S
        work, tokens = self._computing or ("", 0)
        computing_s = tokens / self._rate(work)
        return computing_s + sum(
            sum(tokens for own, tokens in buckets.items() if own <= last) / self._rate(work)
            for work, buckets in self._tokens.items()
        )

    def _count_row(self, job: Job, row: int, turn: float, sign: int) -> None:
        """Count a row that waits from now on, or no longer."""
        tokens, bucket = sign * job.tokens[row], int(turn // BUCKET_S)
        self.waiting_rows += sign
        self.waiting_tokens += tokens
        buckets = self._tokens.setdefault(job.work, {})
        buckets[bucket] = buckets.get(bucket, 0) + tokens
        if not buckets[bucket]:
            del buckets[bucket]

    def _head(self, entries: list[_Entry], now: float) -> _Entry | None:
        """The first row in turn that is still wanted; those before it are forgotten."""
        while entries and not self._is_wanted(entries[0], now):
            heapq.heappop(entries)
        return entries[0] if entries else None

    def _is_wanted(self, entry: _Entry, now: float) -> bool:
        if entry.job.open and entry.job.deadline <= now:
            self.cancel(entry.job)
        return entry.job.open

    def _fill(self, lane: list[_Entry], now: float) -> list[_Entry]:
        """Take the rows of a batch out of a lane, the first in turn among them."""
        budget = self.limits.batch_tokens
        taken = [heapq.heappop(lane)]
        room = budget - taken[0].tokens
        while room > budget // 2 and (entry := self._head(lane, now)) and entry.tokens <= room:
            taken.append(heapq.heappop(lane))
            room -= entry.tokens
        window: list[_Entry] = []
        seen = 0
        while room > 0 and seen < LOOKAHEAD * budget and self._head(lane, now):
            window.append(heapq.heappop(lane))
            seen += window[-1].tokens
        if seen > room:  # a choice has to be made
            groups = {entry.job.group for entry in taken}
            lengths = {entry.tokens for entry in taken}
            window.sort(key=lambda it: (it.job.group not in groups, it.tokens not in lengths))
        for entry in window:
            if entry.tokens <= room:
                taken.append(entry)
                room -= entry.tokens
            else:
                heapq.heappush(lane, entry)
        return taken


def _busy(late_s: float) -> ServiceError:
    wait_s = max(1.0, late_s)
    return ServiceError(
        "more is waiting than can be computed in time",
        status=429,
        retry_after_s=wait_s,
        fix=f"Send the request again in {wait_s:.0f} s.",
    )
