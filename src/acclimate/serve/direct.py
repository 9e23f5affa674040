"""Direct: what is asked most, answered without the framework.

FastAPI takes as long to find a route, look at its arguments and pass all layers of its middleware as the engine takes
to queue a text. So a plain request of such a route gets its answer here: JSON, and in the form that the route wants.
Every other one is the framework's, which finds out and says what is wrong with it; so is one of which traces are sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, get_type_hints

import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from opentelemetry import trace
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

JSON = b"application/json"


class _Route(NamedTuple):
    """A route whose one argument is a body."""

    route: APIRoute
    body: type[BaseModel]
    answer: Callable[[Request, Any], Awaitable[Response]]


class Direct:
    """The ASGI application before the framework's.

    Args:
        app: of the framework; it has all routes.
        routes: those whose plain requests are answered here. Each is a function of the request and its body.
    """

    def __init__(self, app: FastAPI, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): _Route(route, get_type_hints(route.endpoint)["body"], route.endpoint)
            for route in routes
            if isinstance(route, APIRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the edge has read its body."""
        found = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        body = None if found is None or _is_traced() else _read(found.body, scope)
        if found is None or body is None:
            await self._app(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, found.route
        response = await found.answer(Request(scope), body)
        await response(scope, receive, send)


def _read(kind: type[BaseModel], scope: Scope) -> BaseModel | None:
    """The body of a request as its route wants it; None where it is not so."""
    exchange = scope["state"]["exchange"]
    if exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != JSON:
        return None
    try:
        return kind.model_validate(orjson.loads(exchange.body))
    except (orjson.JSONDecodeError, ValidationError):
        return None


def _is_traced() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
