"""Adapters, loaded, swapped and dropped while requests are answered. The right `admin` is needed for all of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import json_response
from acclimate.serve.schemas import LoadAdapterRequest
from acclimate.serve.site import site_of
from acclimate.serve.strict_json import StrictRoute

if TYPE_CHECKING:
    from acclimate.serve.registry import Served

router = APIRouter(route_class=StrictRoute, tags=["adapters"])
Sha256 = Annotated[str, Query(pattern="^[0-9a-f]{64}$")]


@router.get("/v1/adapters", summary="The adapters that are loaded")
async def adapters(request: Request) -> Response:
    """Names, hashes, and the memory of all."""
    registry = site_of(request).service.registry
    loaded = [_shown(model) for model in registry.models() if model.sha256 is not None]
    return json_response({"adapters": loaded, "bytes": registry.bytes_used})


@router.post("/v1/adapters", summary="Load an adapter")
async def load_adapter(request: Request, body: LoadAdapterRequest) -> Response:
    """Load an adapter from below --adapter-root, or another one in place of that with the same name.

    Requests that came before are answered with the one that was there when they came.
    """
    site = site_of(request)
    site.check_writable()
    registry = site.service.registry
    try:
        served = await asyncio.to_thread(registry.load, body.name, body.path, sha256=body.sha256)
    except ServiceError as error:
        error.field = "path" if error.field == "folder" else error.field  # by the name that a request has for it
        raise
    return json_response(_shown(served), status=201)


@router.delete("/v1/adapters/{name}", summary="Drop an adapter")
async def drop_adapter(request: Request, name: str, sha256: Sha256 | None = None) -> Response:
    """Take an adapter out, whatever its hash or only while it is `sha256`."""
    site = site_of(request)
    site.check_writable()
    registry = site.service.registry
    return json_response(_shown(await asyncio.to_thread(registry.drop, name, sha256=sha256)))


def _shown(model: Served) -> dict[str, Any]:
    space = model.space.digest
    return {"name": model.name, "sha256": model.sha256, "dimensions": model.dim, "sides": model.sides, "space": space}
