"""What several routes say or ask alike: the hash of a reply's model, and how much time a request has left."""

from __future__ import annotations

import dataclasses
import time
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.requests import Request

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


def model_headers(pinned: Pinned) -> dict[str, str]:
    """The same as headers, for forms of replies that have no place for it."""
    return {f"x-acclimate-{name}": quote(value, safe="=+@:/.-_") for name, value in named_hash(pinned).items()}


def remaining_s(request: Request) -> float:
    """How many seconds a request has left."""
    exchange = request.state.exchange
    passed = time.perf_counter() - exchange.started
    return float(max(LEAST_S, site_of(request).settings.deadline_s - passed))
