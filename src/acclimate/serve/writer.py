"""Writer: the language model that writes answers, for an event loop: whole answers, and pieces as they come.

Its client waits in threads. A request that is over, or whose client is gone, is not read on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from acclimate.formats.chat import ChatClient, ChatError, Completion, Message
from acclimate.serve.errors import ServiceError

WAITING = 64
"""Answers that may be under way or wait for it; beyond that they are refused."""
AHEAD = 64
"""Pieces that are read before the client has taken them."""
LOOK_S = 0.5
"""How often a thread that waits for its client looks whether it is still there, in seconds."""
RETRIES = 1
"""A client waits: what fails twice is told."""


class Writer:
    """Asks one language model.

    Attributes:
        model: its name.
        context_tokens: most tokens of the passages that it reads, estimated.

    Args:
        client: asks it.
        parallel: answers that are written at once; others wait.
        context_tokens: see above.
        answer_tokens: longest answer.
    """

    def __init__(self, client: ChatClient, parallel: int, context_tokens: int, answer_tokens: int) -> None:
        self.model, self.context_tokens = client.model, context_tokens
        self._client, self._answer_tokens = client, answer_tokens
        self._threads = ThreadPoolExecutor(parallel, "acclimate-answers")
        self._waiting = 0

    async def whole(self, chat: Sequence[Message], deadline_s: float) -> Completion:
        """Ask for one whole answer.

        Args:
            chat: what it is told and asked.
            deadline_s: seconds from now.

        Raises:
            ServiceError: 429 too much is waiting, 502 it cannot be reached or fails, 504 not done in time.
        """
        with self._place(), _translated(deadline_s):
            async with asyncio.timeout(deadline_s):
                loop, answer_tokens = asyncio.get_running_loop(), self._answer_tokens
                return await loop.run_in_executor(self._threads, self._client.complete, chat, answer_tokens)

    async def pieces(self, chat: Sequence[Message], deadline_s: float) -> AsyncGenerator[str | Completion]:
        """Give an answer piece by piece, and at last a `Completion` without text that counts the tokens.

        Args:
            chat: what it is told and asked.
            deadline_s: seconds from now.

        Raises:
            ServiceError: see `whole`; also in the middle.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        arrived: asyncio.Queue[str | Completion | Exception] = asyncio.Queue()
        nobody_waits, room = threading.Event(), threading.Semaphore(AHEAD)

        def put(item: str | Completion | Exception) -> None:
            while not room.acquire(timeout=LOOK_S):
                if nobody_waits.is_set():
                    return
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        def read() -> None:
            try:
                if nobody_waits.is_set():
                    return
                with closing(self._client.stream(chat, self._answer_tokens)) as stream:
                    for piece in stream:
                        put(piece)
                        if nobody_waits.is_set():
                            return
                put(Completion("", stream.prompt_tokens, stream.completion_tokens))
            except Exception as error:
                put(error)

        with self._place(), _translated(deadline_s):
            self._threads.submit(read)
            try:
                while True:
                    # One wait at a time: a generator may be gone on with by another task than the one that began it.
                    item = await asyncio.wait_for(arrived.get(), end - loop.time())
                    room.release()
                    if isinstance(item, Exception):
                        raise item
                    yield item
                    if isinstance(item, Completion):
                        return
            finally:
                nobody_waits.set()

    def close(self) -> None:
        """Wait for nothing: threads end when their language model answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._waiting >= WAITING:
            raise ServiceError("too many answers are being written", status=429, retry_after_s=5)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


@contextlib.contextmanager
def _translated(deadline_s: float) -> Iterator[None]:
    """Errors of the client and of the clock, with HTTP's status."""
    try:
        yield
    except ChatError as error:
        raise ServiceError(f"the language model: {error.found}", status=502, fix="Try again later.") from error
    except TimeoutError:
        raise ServiceError(
            f"the language model was not done within {deadline_s:.0f} s", status=504, fix="Try again later."
        ) from None
