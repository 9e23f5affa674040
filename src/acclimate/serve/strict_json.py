"""JSON as requests may have it: UTF-8, no NaN, no half of a surrogate pair, no endless nesting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


class _JsonRequest(Request):
    """A request that reads its body so."""

    async def json(self) -> Any:
        """Read the body.

        Raises:
            orjson.JSONDecodeError: it is not such JSON.
        """
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route that reads its JSON so; its errors are those of `json`."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Give the function that answers a request."""
        answer = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await answer(_JsonRequest(request.scope, request.receive))

        return strictly
