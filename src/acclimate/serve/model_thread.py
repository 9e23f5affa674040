"""ModelThread: the one thread that runs the models. An event loop puts requests into its queue, and gets the answers.

What both sides touch is guarded by one lock, which is held for microseconds: never while a model computes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.models.reranker import Reranker
from acclimate.models.tokens import tokenise
from acclimate.retrieval.routing import BASE
from acclimate.serve.computing import BatchRecord, Call, EmbedTask, RerankTask, Work, compute, tokens_by_model
from acclimate.serve.errors import ServiceError
from acclimate.serve.registry import Registry
from acclimate.serve.scheduler import Batch, Job, Limits, Scheduler

WARM_WORDS = 16
POLL_S = 0.02
"""How often a service that stops looks whether everything is answered."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits, and how fast it is worked off."""

    rows: int
    tokens: int
    wait_s: float
    """Seconds until a request that comes now is computed, about."""
    tokens_per_s: Mapping[str, float]
    """Kind of work -> measured rate; without those that have not been measured."""


class ModelThread:
    """Runs what its scheduler deals out.

    Args:
        registry: its base is warmed up.
        reranker: what pairs are scored by; None where there is none.
        limits: of requests and batches.
        on_batch: called in the thread after every batch.
        stuck_after_s: a batch that takes longer means that the thread hangs.
    """

    def __init__(
        self,
        registry: Registry,
        reranker: Reranker | None,
        limits: Limits,
        on_batch: Callable[[BatchRecord], None] | None,
        stuck_after_s: float,
    ) -> None:
        self._registry, self._reranker, self._limits = registry, reranker, limits
        self._on_batch, self._stuck_after_s = on_batch, stuck_after_s
        self._lock = threading.Condition()
        """Guards all that follows."""
        self._scheduler = Scheduler(limits)
        self._calls: dict[Call, Job] = {}
        self._busy_since: float | None = None
        self._warm = self._draining = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="acclimate-models", daemon=True)

    def start(self) -> None:
        """Start the thread, which warms up first; returns at once."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether it takes work."""
        return self._warm and not self._draining and self.alive

    @property
    def alive(self) -> bool:
        """Whether the thread runs and is not stuck."""
        since = self._busy_since
        return self._thread.is_alive() and (since is None or time.monotonic() - since < self._stuck_after_s)

    def check_ready(self) -> None:
        """Refuse work that it does not take.

        Raises:
            ServiceError: 503.
        """
        if self.ready:
            return
        why = "stops" if self._draining else "is loading" if self.alive else "has lost its model thread"
        raise ServiceError(f"the service {why}", status=503, retry_after_s=5.0, fix="Try again soon.")

    def check_room(self, deadline: float) -> None:
        """Refuse a request that could not be done in time, however small it is.

        Raises:
            ServiceError: 429.
        """
        with self._lock:
            self._scheduler.check_room(deadline, time.monotonic())

    def queue(self) -> QueueState:
        """Return what waits now."""
        with self._lock:
            queue = self._scheduler
            return QueueState(queue.waiting_rows, queue.waiting_tokens, queue.wait_s, queue.rates)

    async def answer(self, job: Job, task: EmbedTask | RerankTask, results: NDArray[np.float32]) -> NDArray[np.float32]:
        """Queue a job and wait until its results are filled in; where the wait is cancelled, so is the job.

        Raises:
            ServiceError: 413, 429, 500, 503.
        """
        call = job.payload = Call(task, results, len(results), asyncio.get_running_loop().create_future())
        with self._lock:
            self.check_ready()
            self._scheduler.admit(job, time.monotonic())
            self._calls[call] = job
            self._lock.notify()
        try:
            await call.answer
        except asyncio.CancelledError:
            with self._lock:
                self._scheduler.cancel(job)
                self._calls.pop(call, None)
            raise
        return results

    async def drain(self, deadline_s: float) -> bool:
        """Take no more work, finish what is there, and end the thread; see `Engine.drain`."""
        self._draining = True
        deadline = time.monotonic() + deadline_s
        while self._calls and self._thread.is_alive() and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        left = self._give_up(ServiceError("the service stops", status=503, fix="Send the request to another replica."))
        with self._lock:
            self._stopping = True
            self._lock.notify()
        while self._thread.is_alive() and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        return not left

    def _run(self) -> None:
        """Compute batches until the service stops: what the thread does."""
        try:
            self._busy_since = time.monotonic()
            self._warm_up()
            self._busy_since, self._warm = None, True
            while (batch := self._next_batch()) is not None:
                self._busy_since = started = time.monotonic()
                results = compute(batch, self._reranker)
                seconds = time.monotonic() - started
                self._busy_since = None
                _deliver(self._settled(batch, results, seconds))
                if self._on_batch is not None:
                    self._on_batch(_record(batch, results, seconds, self._limits))
        finally:  # nobody shall wait for a thread that has ended
            self._give_up(ServiceError("the model thread has ended", status=500))

    def _next_batch(self) -> Batch | None:
        """Wait for work; None: the service stops."""
        with self._lock:
            while not self._stopping:
                batch = self._scheduler.next_batch(time.monotonic())
                if batch is not None:
                    return batch
                self._lock.wait()
        return None

    def _settled(
        self, batch: Batch, results: Sequence[NDArray[np.float32] | ServiceError], seconds: float
    ) -> list[Call]:
        """Put results into the calls that wait for them, and give those that are answered."""
        done: list[Call] = []
        with self._lock:
            self._scheduler.finished(batch, seconds)
            for (job, row), result in zip(batch.rows, results, strict=True):
                call: Call = job.payload
                if call not in self._calls:  # cancelled meanwhile, or failed
                    continue
                if isinstance(result, ServiceError):
                    call.error = result
                else:
                    call.results[row] = result
                    call.left -= 1
                if call.error or not call.left:
                    done.append(call)
                    self._scheduler.cancel(self._calls.pop(call))
        return done

    def _give_up(self, error: ServiceError) -> list[Call]:
        """Fail what is not answered yet."""
        with self._lock:
            left = list(self._calls)
            for call in left:
                call.error = error
                self._scheduler.cancel(self._calls.pop(call))
        _deliver(left)
        return left

    def _warm_up(self) -> None:
        """Compute a short text and a full batch of each kind, twice: weights are laid out, and the rates known."""
        pinned = self._registry.pin(BASE)
        how, tokenizer = pinned.adapters.treatment(None, "document"), self._registry.base.tokenizer
        text = " ".join(["text"] * WARM_WORDS)
        one = tokenise(tokenizer, [how.prompt + text], how.max_tokens)
        count = max(1, self._limits.batch_tokens // len(one.flat))
        full = tokenise(tokenizer, [how.prompt + text] * count, how.max_tokens)
        choices = [how.choice] * count
        for _ in range(2):
            pinned.adapters.encode_tokens(one, choices[:1], how.dim)
            started = time.monotonic()
            pinned.adapters.encode_tokens(full, choices, how.dim)
            seconds = time.monotonic() - started
        rates: dict[Work, tuple[int, float]] = {"embed": (len(full.flat), seconds)}
        if self._reranker is not None:
            pairs = self._reranker.tokenise([text] * count, [text] * count)
            for _ in range(2):
                started = time.monotonic()
                self._reranker.score_tokens(pairs)
                rates["rerank"] = len(pairs.tokens.flat), time.monotonic() - started
        with self._lock:
            for work, (tokens, seconds) in rates.items():
                self._scheduler.measured(work, tokens, seconds)


def _record(
    batch: Batch, results: Sequence[NDArray[np.float32] | ServiceError], seconds: float, limits: Limits
) -> BatchRecord:
    return BatchRecord(
        work="rerank" if batch.work == "rerank" else "embed",
        rows=len(batch.rows),
        tokens=batch.tokens,
        fill=batch.tokens / limits.batch_tokens,
        waited_s=batch.waited_s,
        compute_s=seconds,
        failed_rows=sum(isinstance(result, ServiceError) for result in results),
        tokens_by_model=tokens_by_model(batch),
    )


def _deliver(calls: Sequence[Call]) -> None:
    """Wake the loops whose calls are answered: each once, not once a call. Any thread may do that."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call]] = {}
    for call in calls:
        by_loop.setdefault(call.answer.get_loop(), []).append(call)
    for loop, own in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_wake, own)


def _wake(calls: Sequence[Call]) -> None:
    for call in calls:
        if call.answer.done():
            continue
        if call.error is None:
            call.answer.set_result(None)
        else:
            call.answer.set_exception(call.error)
