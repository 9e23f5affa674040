"""Which models are served: `GET /v1/models` as OpenAI has it, and `GET /info` as text-embeddings-inference has it."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import json_response
from acclimate.serve.sides import asked_model
from acclimate.serve.site import Site, site_of
from acclimate.serve.strict_json import StrictRoute

if TYPE_CHECKING:
    from acclimate.serve.registry import Served

router = APIRouter(route_class=StrictRoute)


@router.get("/v1/models", tags=["models"], summary="The models that are served")
async def models(request: Request) -> Response:
    """Every name that a request may ask for: base, adapters, and both with `@query` and `@document`."""
    site = site_of(request)
    return json_response({"object": "list", "data": [row for model in _models(site) for row in _rows(model)]})


@router.get("/v1/models/{name:path}", tags=["models"], summary="One model")
async def model(request: Request, name: str) -> Response:
    """One of these names."""
    site = site_of(request)
    asked = asked_model(name)
    served = site.service.registry.pin(asked.name).served
    found = next((row for row in _rows(served) if row["id"].partition("@")[2] == (asked.side or "")), None)
    if found is None:
        raise ServiceError(f"no model is called {name[:80]!r}", status=404, field="model")
    return json_response({**found, "id": name})


@router.get("/info", tags=["text-embeddings-inference"], summary="The service (TEI)")
async def info(request: Request) -> Response:
    """The base model and the limits, by TEI's names; and what there is beside it."""
    site = site_of(request)
    base = site.service.registry.models()[0]
    settings = site.settings
    return json_response(
        {
            "model_id": base.base_id,
            "model_sha": base.base_sha256,
            "model_type": {"embedding": {"pooling": base.space.pooling}},
            "max_input_length": base.max_tokens,
            "max_client_batch_size": settings.max_inputs,
            "max_batch_tokens": settings.batch_tokens,
            "max_batch_requests": None,
            "auto_truncate": True,
            "feedback": bool(site.feedback),
            "version": version("acclimate"),
            "indexes": list(site.indexes),
            "reranker": site.service.reranker_id,
            "reranker_sha256": site.service.reranker_sha256,
            "language_model": None if site.writer is None else site.writer.model,
        }
    )


def _models(site: Site) -> list[Served]:
    return site.service.registry.models()


def _rows(model: Served) -> list[dict[str, Any]]:
    """A model under its three names."""
    is_base, domain = model.sha256 is None, model.domain
    facts = {
        "object": "model",
        "created": 0,
        "owned_by": "acclimate",
        "parent": None if is_base else model.base_id,
        "root": model.base_id if is_base else model.name,
        "sha256": model.sha256 or model.base_sha256,
        "dimensions": model.dim,
        "matryoshka": model.matryoshka,
        "max_tokens": model.max_tokens,
        "prompts": model.prompts.to_json(),
        "sides": model.sides,
        "needs_input_type": model.needs_role,
        "domain": None if domain is None else {"centroids": len(domain.centroids), "radius": domain.radius},
        "space": {"digest": model.space.digest, **dataclasses.asdict(model.space)},
    }
    sides = {"": None, "@query": "query", "@document": "document"}
    return [{"id": model.name + suffix, "input_type": side, **facts} for suffix, side in sides.items()]
