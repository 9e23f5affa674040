"""Connections that are given up where the other side does nothing: uvicorn's own has no such limits but between
requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import error_response

MAX_HEAD_BYTES = 65_536
LOOK_AGAIN_S = 0.05
"""When the event loop was held up, its timers come before what has arrived meanwhile; so that is looked at first."""


class Connection(HttpToolsProtocol):
    """One client. It may take `idle_s` over the head of a request, and as long to take a part of the reply.

    Attributes:
        when_lost: called when the client hangs up; set by who answers its request, while it is answered.
    """

    def __init__(self, *args: Any, idle_s: float, **keywords: Any) -> None:
        """Make it for a client that is about to connect."""
        super().__init__(*args, **keywords)
        self._head, self._taking = _Patience(self, idle_s), _Patience(self, idle_s)
        self.when_lost: Callable[[], None] | None = None
        self._head_bytes: int | None = None
        """Bytes of a head that has begun and is not whole; None: there is none."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of a request."""
        super().connection_made(transport)
        self._head.begin()

    def data_received(self, data: bytes) -> None:
        """Take data; what is not a part of a request under way is the beginning of a head, or the rest of a body that
        was refused, and has its time too."""
        super().data_received(data)
        waits = self.cycle is None or self.cycle.response_complete
        if waits and not self.transport.is_closing():
            self._head.begin()
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(431, f"the head of the request has more than {MAX_HEAD_BYTES:,} bytes")

    def on_message_begin(self) -> None:
        """Begin a head; the request knows its connection."""
        self._head_bytes = 0
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_headers_complete(self) -> None:
        """Let the request begin: its body is the application's to wait for."""
        self._head.end()
        self._head_bytes = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request as uvicorn does; one that has begun already has its time."""
        if self._head_bytes is None:
            self._head.end()
        else:
            self._head.begin()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not take what is sent."""
        super().pause_writing()
        self._taking.begin()

    def resume_writing(self) -> None:
        """Go on sending."""
        self._taking.end()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client, and tell who answers it."""
        self._head.end()
        self._taking.end()
        super().connection_lost(exc)
        if self.when_lost is not None:
            self.when_lost()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the shape of all errors."""
        self._refuse(400, msg)

    def _refuse(self, status: int, said: str) -> None:
        """Answer without a route, and close."""
        reply = error_response(ServiceError(said, status=status), request_id="")
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        phrase = HTTPStatus(status).phrase.encode()
        self.transport.write(head % (status, phrase, len(reply.body)) + bytes(reply.body))
        self.transport.close()


class _Patience:
    """Gives a connection up, unless it is told in time that the other side has moved."""

    def __init__(self, connection: HttpToolsProtocol, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Begin to wait, or go on waiting."""
        if self._timer is None:
            self._timer = self._connection.loop.call_later(self._seconds, self._look_again)

    def end(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        self._timer = self._connection.loop.call_later(LOOK_AGAIN_S, self._connection.transport.abort)
