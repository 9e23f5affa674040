"""ServedFeedback: what the searches of a run show and what searchers mark, written by one thread beside the event loop.

A search does not wait until what it shows is written; a mark is answered when it is on the disk, and what was shown
before it too.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from acclimate.errors import AcclimateError
from acclimate.feedback.position import with_swap
from acclimate.feedback.records import Impression, Mark
from acclimate.feedback.store import Added, FeedbackStore
from acclimate.serve.errors import ServiceError
from acclimate.serve.indexes import ServedIndex
from acclimate.serve.logs import log
from acclimate.serve.metrics import Metrics

T = TypeVar("T")

MOST_PENDING = 10_000
"""Impressions that may wait to be written; beyond that a search is answered without one."""
MOST_WAITING = 256
"""Requests with marks that may wait; beyond that they are refused."""


class ServedFeedback:
    """The feedback of one run.

    Args:
        path: `RUN/feedback.sqlite`; made with the first impression or mark.
        index: whose documents are shown and marked.
        swaps: share of the searches in which neighbours are put in random order.
        metrics: told of impressions and marks.
    """

    def __init__(self, path: Path, index: ServedIndex, swaps: float, metrics: Metrics) -> None:
        """Open nothing yet."""
        self.path, self.index, self.swaps, self.metrics = path, index, swaps, metrics
        self._draw = random.Random()
        self._pending: deque[Impression] = deque()
        self._waiting = 0
        self._store: FeedbackStore | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"feedback {index.name}")

    def show(
        self, query: str, hits: Sequence[T], id_of: Callable[[T], str], *, adapter: str, space: str
    ) -> tuple[list[T], str | None]:
        """Decide in which order hits are shown, and keep that.

        Args:
            query: as it was typed.
            hits: best first.
            id_of: gives a hit's document.
            adapter: content hash of what encoded the query.
            space: digest of the space that was searched.

        Returns:
            the hits as they are shown, and the impression's id; None where too many wait to be written.
        """
        if len(self._pending) >= MOST_PENDING:
            self.metrics.impressions.labels(self.index.name, "no").inc()
            return list(hits), None
        shown, pair = with_swap(hits, self.swaps, self._draw)
        ids = tuple(map(id_of, shown))
        epoch = self.index.epoch
        impression = Impression(uuid.uuid4().hex, time.time(), query, ids, adapter, space, epoch, pair)
        self._pending.append(impression)
        if len(self._pending) == 1:
            self._writer.submit(self._flush)
        self.metrics.impressions.labels(self.index.name, "yes").inc()
        return shown, impression.id

    async def mark(self, marks: Sequence[Mark]) -> Added:
        """Store marks; when this returns they are on the disk.

        Raises:
            ServiceError: 429 too much is waiting.
            StorageError: it cannot be written.
        """

        def marked() -> Added:
            self._write_pending()
            return self._opened().add_marks(marks, self.index.present if self.index.is_there else None)

        added = await self._in_writer(marked)
        for name, count in (("stored", added.stored), ("repeated", added.repeated), ("refused", len(added.refused))):
            self.metrics.marks.labels(self.index.name, name).inc(count)
        return added

    async def known(self, impressions: Iterable[str]) -> set[str]:
        """Return those of the impressions that are of this run."""
        wanted = list(impressions)

        def found() -> set[str]:
            self._write_pending()
            return self._opened().known(wanted)

        return await self._in_writer(found)

    def close(self) -> None:
        """Write what is pending, and close the file."""
        self._writer.submit(self._flush)
        self._writer.shutdown()
        if self._store is not None:
            self._store.close()

    async def _in_writer(self, call: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING:
            raise ServiceError("too many requests wait for the feedback", status=429, retry_after_s=1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, call)
        finally:
            self._waiting -= 1

    def _flush(self) -> None:
        """Write what is pending; what cannot be written is lost, and that is told."""
        try:
            self._write_pending()
        except AcclimateError as error:
            self.metrics.failures.labels(f"feedback {self.index.name}").inc()
            log("impressions not kept", level=logging.ERROR, index=self.index.name, reason=str(error))

    def _write_pending(self) -> None:
        if pending := [self._pending.popleft() for _ in range(len(self._pending))]:
            self._opened().add_impressions(pending)

    def _opened(self) -> FeedbackStore:
        if self._store is None:
            self._store = FeedbackStore(self.path, create=True)
        return self._store
