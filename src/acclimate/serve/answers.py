"""What several routes say or ask alike: the hash of a reply's model, and how much time a request has left."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import BaseModel
from starlette.requests import Request

from acclimate.serve.result_cache import Identity, digest
from acclimate.serve.site import site_of

if TYPE_CHECKING:
    from acclimate.serve.registry import Pinned, Served
    from acclimate.text_use import SpaceId

LEAST_S = 0.001


def space_of(served: Served, task: str | None) -> SpaceId:
    """The space of a model's document vectors with the prompt of a task."""
    return dataclasses.replace(served.space, document_prompt=served.prompts.prompt("document", task))


def named_hash(pinned: Pinned) -> dict[str, str]:
    """The model that a reply was computed with, by its name, its content hash and its space."""
    served = pinned.served
    return {"model": pinned.name, "sha256": pinned.sha256 or served.base_sha256, "space": _digest(served.space)}


@lru_cache(maxsize=1024)
def _digest(space: SpaceId) -> str:
    return space.digest


def hash_headers(named: Mapping[str, str]) -> dict[str, str]:
    """What `named_hash` gives, as headers."""
    return {f"x-acclimate-{name}": _as_header(value) for name, value in named.items()}


@lru_cache(maxsize=1024)
def _as_header(value: str) -> str:
    return quote(value, safe="=+@:/.-_")


async def identity_of(
    request: Request, body: BaseModel, query: str | None, without: Collection[str]
) -> Identity | None:
    """All that the reply to a request depends on; None where nothing may be kept for it.

    Any change of any index or model that is served is another epoch: which of them a request will use, it may leave to
    the service.

    Args:
        request: whose key counts, too: nothing is kept for another one.
        body: of the request.
        query: of the request.
        without: fields of the body on which the reply does not depend.
    """
    site = site_of(request)
    if not site.results.keeps_anything or not query:
        return None
    states = {name: await index.state() for name, index in site.indexes.items()}
    if None in states.values():
        return None
    models = {model.name: model.sha256 or model.base_sha256 for model in site.service.registry.models()}
    left = body.model_dump(mode="json", exclude={*without, "query", "cache"})
    fusions = {name: dataclasses.asdict(index.fusion) for name, index in site.indexes.items()}
    written_by = None if site.writer is None else site.writer.model
    scope = digest(
        request.url.path, request.state.exchange.caller, left, fusions, site.service.reranker_sha256, written_by
    )
    return Identity(scope, digest(states, models).hex(), query)


def remaining_s(request: Request) -> float:
    """How many seconds a request has left."""
    exchange = request.state.exchange
    passed = time.perf_counter() - exchange.started
    return float(max(LEAST_S, site_of(request).deadline_s(request.scope["path"]) - passed))
