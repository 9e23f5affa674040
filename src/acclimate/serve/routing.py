"""Which adapters answer a search that leaves it to the service: `"adapter": "auto"`, `"mix"` or `"fuse"`.

What is served is looked at once, when the request comes: a swap meanwhile changes nothing of its answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from acclimate.retrieval.routing import BASE, CentroidRouter, Route, RouteMode, route
from acclimate.serve.answers import space_of
from acclimate.serve.errors import ServiceError
from acclimate.serve.site import Site

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from acclimate.serve.indexes import ServedIndex
    from acclimate.serve.registry import Pinned, Registry, Served
    from acclimate.text_use import SpaceId


class Party(NamedTuple):
    """One of those that answer a query."""

    name: str
    """The adapter's name, `base`, or a mixture's."""
    share: float
    pinned: Pinned
    vector: NDArray[np.float32]
    """[D], of the query."""
    searched: ServedIndex


class Routed(NamedTuple):
    """What answers a query: one party, or, fused, several."""

    route: Route
    parties: tuple[Party, ...]


async def routed(site: Site, index: ServedIndex, mode: RouteMode, text: str, deadline_s: float) -> Routed:
    """Choose what answers a query, and encode it.

    Args:
        site: what is served.
        index: that the request names.
        mode: how adapters answer.
        text: of the query.
        deadline_s: seconds from now.

    Raises:
        ServiceError: 422 the index does not hold base vectors, and nothing is fused; an adapter of both sides is among
            the nearest and cannot be mixed; 400 adapters that are not used alike; whatever `Engine.embed` raises.
    """
    registry = site.service.registry.snapshot()
    places, left_out = _places(site, registry, index)
    if mode != "fuse" and BASE not in places:
        raise ServiceError(
            f"the index {index.name} holds vectors of {index.model}, and not of the base",
            status=422,
            field="adapter",
            possible="auto and mix where an index holds base vectors",
            fix="Use fuse, or name an index of the base or of an adapter for queries alone.",
        )
    distances, radii = await _distances(site, registry, text, deadline_s)
    known = [name for name in distances if name in places and (mode == "fuse" or places[name] is index)]
    if mode == "mix":  # those that cannot be mixed are refused, not passed over
        known = [name for name in distances if name in places]
    found = route(mode, {name: distances[name] for name in known}, radii, site.service.mixed_experts)
    if mode == "mix":
        _check_mixable(found, places, index)
    found = _with_left_out(found, distances, known, left_out)
    if mode == "fuse":
        return await _fused(site, registry, index, found, places, text, deadline_s)
    pinned = pinned_as(registry, _one(found.weights))
    vector = await _vector(site, pinned, index, text, deadline_s)
    return Routed(found, (Party(pinned.name, 1.0, pinned, vector, index),))


def pinned_as(registry: Registry, adapter: str | Mapping[str, float]) -> Pinned:
    """Settle the adapter, or adapters, of a search request.

    Raises:
        ServiceError: see `Registry.pin`; by the name that the request has for it.
    """
    try:
        return registry.pin(adapter)
    except ServiceError as error:
        error.field = "adapter"
        raise


def space_in(index: ServedIndex, served: Served) -> SpaceId:
    """The space of a model's document vectors, with the prompt of an index's task where the model knows that."""
    return space_of(served, _task(served, index))


def check_mixture(registry: Registry, weights: Mapping[str, float], index: ServedIndex) -> None:
    """Refuse a mixture for an index that one of its adapters cannot search.

    Raises:
        ServiceError: 422; the adapter is named.
    """
    own = space_in(index, registry.pin(index.model).served)
    for name in weights:
        served = pinned_as(registry, name).served
        if len(weights) > 1 and space_in(index, served) != own:
            raise _cannot_be_mixed(served.name)


def _places(site: Site, registry: Registry, index: ServedIndex) -> tuple[dict[str, ServedIndex], dict[str, str]]:
    """What each model would search; and why some cannot take part."""
    own = space_in(index, registry.pin(index.model).served)
    tokens = site.service.token_router
    places: dict[str, ServedIndex] = {}
    left_out: dict[str, str] = {}
    for served in registry.models():
        if space_in(index, served) == own:
            places[served.name] = index
        elif served.name != BASE:
            its = next((one for one in site.indexes.values() if one.model == served.name), None)
            if its is not None and its.is_there and served.sides == "both":
                places[served.name] = its
            else:
                left_out[served.name] = "it searches vectors of its own, of which no index is served"
        if served.name != BASE and tokens is None and served.domain is None:
            left_out[served.name] = "it has no centroids"
        elif served.name != BASE and tokens is not None and served.name not in tokens.radii:
            left_out[served.name] = "the router by tokens was fitted without it"
    return places, left_out


async def _distances(
    site: Site, registry: Registry, text: str, deadline_s: float
) -> tuple[dict[str, float], Mapping[str, float]]:
    """How far the query is from each adapter's own, and their radii; of adapters that are still served."""
    tokens = site.service.token_router
    names = {served.name for served in registry.models()}
    if tokens is not None:
        return {name: value for name, value in tokens.distances([text])[0].items() if name in names}, tokens.radii
    domains = {served.name: served.domain for served in registry.models() if served.domain is not None}
    router = CentroidRouter(domains)
    found = await site.service.engine.embed([text], pinned=registry.pin(BASE), role="query", deadline_s=deadline_s)
    return router.distances(found.vectors)[0], router.radii


async def _fused(
    site: Site,
    registry: Registry,
    index: ServedIndex,
    found: Route,
    places: Mapping[str, ServedIndex],
    text: str,
    deadline_s: float,
) -> Routed:
    """All that share the query, each with its own vector and index; they are encoded in one batch."""
    shares = {name: share for name, share in found.shares.items() if name in places}
    if not shares:
        shares = {index.model: 1.0}
        found = dataclasses.replace(
            found, weights=shares, reason=f"{found.reason}; the index holds no base vectors, so {index.model} answers"
        )
    pins = [pinned_as(registry, name) for name in shares]
    vectors = await asyncio.gather(*(_vector(site, pinned, places[pinned.name], text, deadline_s) for pinned in pins))
    parties = zip(shares.items(), pins, vectors, strict=True)
    return Routed(
        found, tuple(Party(name, share, pinned, vector, places[name]) for (name, share), pinned, vector in parties)
    )


async def _vector(site: Site, pinned: Pinned, index: ServedIndex, text: str, deadline_s: float) -> NDArray[np.float32]:
    task = _task(pinned.served, index)
    found = await site.service.engine.embed([text], pinned=pinned, role="query", task=task, deadline_s=deadline_s)
    vector: NDArray[np.float32] = found.vectors[0]
    return vector


def _task(served: Served, index: ServedIndex) -> str | None:
    """The index's task, of a model that knows it; else the default one."""
    return index.task if index.task in served.prompts.tasks else None


def _one(weights: Mapping[str, float]) -> str | Mapping[str, float]:
    """The one adapter that answers alone, the base where there is none, or several by their weights."""
    if not weights:
        return BASE
    name = next(iter(weights))
    return name if weights == {name: 1.0} else weights


def _check_mixable(found: Route, places: Mapping[str, ServedIndex], index: ServedIndex) -> None:
    for name in found.weights:
        if places[name] is not index:
            raise _cannot_be_mixed(name)


def _cannot_be_mixed(name: str) -> ServiceError:
    return ServiceError(
        f"{name} cannot be mixed here: its documents have vectors of their own, which this index does not hold",
        status=422,
        field="adapter",
        possible="adapters whose queries search the vectors of this index",
        fix="Fuse their results instead: fuse.",
    )


def _with_left_out(
    found: Route, distances: Mapping[str, float], known: list[str], left_out: Mapping[str, str]
) -> Route:
    """The route, with all distances and why some adapters could not be chosen."""
    why = dict(left_out)
    why |= {name: "it searches another index" for name in distances if name not in known and name not in left_out}
    said = "".join(f"; {name} is left out: {reason}" for name, reason in why.items())
    return dataclasses.replace(found, distances=dict(distances), reason=f"{found.reason}{said}")
