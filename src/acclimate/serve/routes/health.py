"""Whether the service lives, whether it answers, and what it has done: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import json_response
from acclimate.serve.site import site_of
from acclimate.serve.strict_json import StrictRoute

router = APIRouter(route_class=StrictRoute, tags=["operations"])


@router.get("/livez", summary="Is it alive?")
async def livez(request: Request) -> Response:
    """Fails where the thread that runs the models has ended or hangs, so that the process has to be started again."""
    site = site_of(request)
    if site.loaded is not None and not site.loaded.engine.alive and not site.is_draining:
        raise ServiceError("the thread that runs the models has ended, or hangs", status=503)
    return json_response({"status": "alive"})


@router.get("/readyz", summary="Does it answer?")
async def readyz(request: Request) -> Response:
    """Fails while the models are loaded and warmed up, and while the service is being stopped."""
    site_of(request).check_running()
    return json_response({"status": "ready"})


@router.get("/metrics", summary="Numbers for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, tokens, batches, latency by phase, adapters, indexes, caches, failures."""
    site = site_of(request)
    site.metrics.results.kept(site.results)
    return Response(site.metrics.page(site.loaded), media_type=CONTENT_TYPE_LATEST)
