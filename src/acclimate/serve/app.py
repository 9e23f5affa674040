"""The application: routes, errors in one shape, the OpenAPI page; around it the edge."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from acclimate.errors import AcclimateError
from acclimate.serve.direct import Direct
from acclimate.serve.edge import Edge
from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import as_service_error, error_response
from acclimate.serve.routes import (
    adapters,
    answer,
    capabilities,
    documents,
    embeddings,
    feedback,
    health,
    models,
    page,
    pictures,
    rerank,
    search,
)
from acclimate.serve.schemas import ErrorReply
from acclimate.serve.site import Site

FAMILIES = (
    embeddings,
    models,
    capabilities,
    rerank,
    search,
    answer,
    documents,
    pictures,
    feedback,
    adapters,
    health,
    page,
)
DIRECT = (embeddings, rerank, search)
"""Those that applications ask all the time."""
NO_JSON = "json_invalid"
TITLE = "Acclimate"
DESCRIPTION = "Embeddings, reranking and search with adapted models. Every error has the same shape."


def make_app(site: Site) -> ASGIApp:
    """Put everything together."""
    has_telemetry = importlib.util.find_spec("opentelemetry.sdk") is not None
    app = FastAPI(
        title=TITLE,
        version=version("acclimate"),
        telemetry={"tracing": has_telemetry, "metrics": False, "logs": False, "auto_configure": has_telemetry},
        redoc_url=None,
    )
    app.state.site = site
    for family in FAMILIES:
        app.include_router(family.router)
    app.add_exception_handler(AcclimateError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    asked_most = [route for family in DIRECT for route in family.router.routes]
    edge: ASGIApp = Edge(Direct(app, asked_most), site)
    if site.settings.cors:
        headers = ["authorization", "content-type", "x-api-key", "x-request-id"]
        edge = CORSMiddleware(edge, allow_origins=site.settings.cors, allow_methods=["*"], allow_headers=headers)
    return edge


def _reply(request: Request, error: ServiceError, headers: dict[str, str] | None = None) -> Response:
    return error_response(error, request.state.exchange.id, headers)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, AcclimateError)
    return _reply(request, as_service_error(error))


async def _invalid(request: Request, error: Exception) -> Response:
    """The first thing that is wrong with a request, by the name of its field."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == NO_JSON:
        said = first["ctx"]["error"]
        return _reply(request, ServiceError(f"the body is no JSON: {said}", status=400, possible="JSON in UTF-8"))
    where = [str(part) for part in first["loc"]]
    field = ".".join(where[1:] if where[0] in ("body", "query", "path", "header") else where)
    if not field:
        sent = request.headers.get("content-type", "none")
        said = f"the body is missing, or is no JSON object (content-type: {sent[:80]})"
        possible = "a JSON object, with content-type: application/json"
        return _reply(request, ServiceError(said, status=422, possible=possible))
    return _reply(request, ServiceError(f"{field}: {first['msg']}", status=422, field=field))


async def _bug(request: Request, error: Exception) -> Response:  # noqa: ARG001  (the edge writes it into the log)
    """A fault of ours."""
    return _reply(request, ServiceError("the service failed", status=500, fix="Look for the request_id in its log."))


async def _http(request: Request, error: Exception) -> Response:
    """What the framework says of paths and methods that are not there."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:80]
    if error.status_code == 404:
        said = ServiceError(f"there is nothing at {path!r}", status=404, fix="The routes: GET /docs.")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        said = ServiceError(f"{request.method} {path!r} is not possible", status=405, possible=allowed)
    else:
        said = ServiceError(str(error.detail), status=error.status_code)
    return _reply(request, said, dict(error.headers or {}))


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description of all routes, with the errors and the keys that all of them have."""
    if app.openapi_schema is None:
        found = get_openapi(title=TITLE, version=version("acclimate"), routes=app.routes, description=DESCRIPTION)
        schemas = found["components"]["schemas"]
        schemas["Error"] = ErrorReply.model_json_schema()
        failure = {
            "description": "Refused or failed",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = failure
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}, {}]
        app.openapi_schema = found
    return app.openapi_schema
