"""What every request passes before it reaches a route: who calls, how much they send, how long they may take.

It reads the whole body first, within limits of size and time, so that a route never waits for a client. Then it runs
the route and listens: where the client hangs up, the route is cancelled, and its work is dropped. All that is refused
here has the same shape as the routes' own errors, and every request is one line in the log.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from acclimate.configs.serve import LOOPBACK
from acclimate.errors import AcclimateError
from acclimate.serve.access import is_open, right_needed
from acclimate.serve.errors import ServiceError
from acclimate.serve.logs import log
from acclimate.serve.replies import as_service_error, error_response
from acclimate.serve.site import Site

METRICS = "/metrics"
GRACE_S = 1.0
"""After the deadline: the engine says more exactly than we could what was not done in time."""
BODIES_AT_ONCE = 16
"""The bodies under way take at most as much memory as this number of the largest."""
HUNG_UP = 499
"""The status in log and metrics of a request whose client did not wait (nginx's number)."""
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_ids = random.Random()
"""They have to differ, not to be secret: the system's own random numbers cost a call of it each."""


class _HungUp(Exception):
    """The client is gone."""


@dataclass(slots=True)
class Exchange:
    """One request and its reply."""

    id: str
    started: float
    headers: Mapping[bytes, bytes]
    status: int = 0
    """0: nothing was sent."""
    caller: str = ""
    is_whole: bool = False
    """Whether the reply was sent to its end."""
    body: bytes = b""


class Edge:
    """The ASGI application around the routes."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        """Put it around an application."""
        self.app, self.site = app, site
        self._body_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        exchange = Exchange(_request_id(headers), time.perf_counter(), headers)
        scope.setdefault("state", {})["exchange"] = exchange
        sending = _counted(send, exchange)
        self.site.metrics.in_flight.inc()
        try:
            await self._answer(scope, receive, sending, exchange)
        except AcclimateError as error:
            await self._refuse(as_service_error(error), scope, receive, sending, exchange)
        except _HungUp:
            exchange.status = HUNG_UP
        except Exception as error:  # a bug of ours
            log("failed", level=40, error=error, request_id=exchange.id, path=scope["path"])
            internal = ServiceError("the service failed", status=500, fix="Look for the request_id in its log.")
            await self._refuse(internal, scope, receive, sending, exchange)
        finally:
            self.site.metrics.in_flight.dec()
            self._tell(scope, exchange)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        method, path, headers = scope["method"], scope["path"], exchange.headers
        self._check_host(headers)
        if (right := right_needed(method, path)) is not None:
            exchange.caller = self.site.keys.caller(headers, right).name
        if not _works_while_loading(path):
            self.site.check_running()
        exchange.body = await self._body(headers, receive)
        try:
            await self._run(scope, send, exchange)
        finally:
            self._body_bytes -= len(exchange.body)

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse names that are not ours where nothing else protects the service.

        A web page may let its own name lead to 127.0.0.1, and then call us as if we were its server (DNS rebinding).
        """
        settings = self.site.settings
        if settings.keys is not None or settings.host not in LOOPBACK:
            return
        host = headers.get(b"host", b"localhost").decode("latin-1").lower()
        name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        if name not in LOOPBACK:
            raise ServiceError(
                f"the request is for the host {host[:80]!r}",
                status=421,
                possible=", ".join(LOOPBACK),
                fix="Behind a proxy, give --keys FILE.",
            )

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Read the body; one that is too large is refused before it is read, one that is too slow is not waited for."""
        most = int(self.site.settings.max_body_mb * 1e6)
        length = int(headers.get(b"content-length", b"0"))
        if length > most:
            raise _too_large(most)
        if self._body_bytes + length > most * BODIES_AT_ONCE:
            raise ServiceError("too many large requests at once", status=429, retry_after_s=1)
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self.site.settings.idle_s):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _HungUp
                    part = message.get("body", b"")
                    self._body_bytes += len(part)
                    body += part
                    if len(body) > most:
                        raise _too_large(most)
                    more = message.get("more_body", False)
        except BaseException as error:
            self._body_bytes -= len(body)
            if isinstance(error, TimeoutError):
                said = f"the body was not there within {self.site.settings.idle_s:g} s"
                raise ServiceError(said, status=408) from None
            raise
        return bytes(body)

    async def _run(self, scope: Scope, send: Send, exchange: Exchange) -> None:
        """Run the route, until it is done, its client is gone, or its time is over."""
        task, connection = asyncio.current_task(), scope["state"]["connection"]
        assert task is not None
        given = False
        why: Exception | None = None
        """Why it was cancelled, where we did that."""

        async def replay() -> Message:
            nonlocal given
            if given:
                await asyncio.Event().wait()  # the connection says when the client hangs up
            given = True
            return {"type": "http.request", "body": exchange.body, "more_body": False}

        def end(reason: Exception) -> None:
            nonlocal why
            if why is None and not exchange.is_whole:
                why = reason
                task.cancel()

        def lost() -> None:
            end(_HungUp())

        def late() -> None:
            said = f"not done within {deadline_s:g} s; what it began to write may still be written"
            end(ServiceError(said, status=504))

        deadline_s = self.site.deadline_s(scope["path"])
        left_s = deadline_s + GRACE_S - (time.perf_counter() - exchange.started)
        timer = asyncio.get_running_loop().call_later(left_s, late)
        connection.when_lost = lost
        try:
            await self.app(scope, replay, send)
        except asyncio.CancelledError:
            if why is None:  # the process ends
                raise
            task.uncancel()
            raise why from None
        finally:
            timer.cancel()
            if connection.when_lost is lost:  # the connection's next request may have begun
                connection.when_lost = None

    async def _refuse(
        self, error: ServiceError, scope: Scope, receive: Receive, send: Send, exchange: Exchange
    ) -> None:
        if exchange.status:  # a reply was begun: nothing more can be said
            return
        # The rest of a body of wrong size is not waited for, and the connection cannot be used for another request.
        closing = {"connection": "close"} if error.status == 408 else {}
        await error_response(error, exchange.id, closing)(scope, receive, send)

    def _tell(self, scope: Scope, exchange: Exchange) -> None:
        seconds = time.perf_counter() - exchange.started
        route = getattr(scope.get("route"), "path", "unknown")
        self.site.metrics.replied(route, scope["method"], exchange.status, seconds)
        facts = {
            "request_id": exchange.id,
            "method": scope["method"],
            "path": scope["path"],
            "status": exchange.status,
            "ms": round(1000 * seconds, 1),
            "key": exchange.caller,
        }
        if exchange.status != 200 or not _works_while_loading(scope["path"]):  # probes come every few seconds
            log("request", **facts)


def _works_while_loading(path: str) -> bool:
    return path == METRICS or is_open(path)


def _too_large(most: int) -> ServiceError:
    said, possible = "the body is too large", f"up to {most:,} bytes"
    return ServiceError(said, status=413, possible=possible, fix="Send it in several requests.")


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's own id, if it is one that can be logged, or a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else f"{_ids.getrandbits(128):032x}"


def _counted(send: Send, exchange: Exchange) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", exchange.id.encode())]
        elif not message.get("more_body", False):
            exchange.is_whole = True
        await send(message)

    return sending
