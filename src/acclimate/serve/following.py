"""What changes on disk while the service runs: keys, the adapter of a run, the documents of an index.

It is looked at every few seconds. A failure is told once, counted, and ends nothing: what was there before stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from acclimate.serve.answers import space_of
from acclimate.serve.indexes import ServedIndex
from acclimate.serve.logs import log
from acclimate.serve.site import Site


async def follow(site: Site) -> None:
    """Follow until cancelled."""
    told: dict[str, str] = {}
    while True:
        await asyncio.sleep(site.settings.poll_s)
        await _try(site, told, "keys", _keys(site))
        if site.loaded is not None and site.loaded.engine.ready:
            await _try(site, told, "adapters", _adapters(site))
            for name, index in site.indexes.items():
                await _try(site, told, f"index {name}", _index(site, index))


def _keys(site: Site) -> Callable[[], Awaitable[None]]:
    async def read() -> None:
        if site.keys.has_changed:
            site.keys.reload()
            log("keys reloaded")

    return read


def _adapters(site: Site) -> Callable[[], Awaitable[None]]:
    async def refreshed() -> None:
        for model in await asyncio.to_thread(site.service.refresh):
            log("adapter swapped", name=model.name, sha256=model.sha256)

    return refreshed


def _index(site: Site, index: ServedIndex) -> Callable[[], Awaitable[None]]:
    async def looked() -> None:
        await index.follow(space_of(site.service.registry.pin(index.model).served, index.task))

    return looked


async def _try(site: Site, told: dict[str, str], what: str, look: Callable[[], Awaitable[None]]) -> None:
    try:
        await look()
    except Exception as error:
        site.metrics.failures.labels(what).inc()
        if told.get(what) != str(error):
            log(f"{what} not followed", level=logging.ERROR, reason=str(error))
        told[what] = str(error)
    else:
        told.pop(what, None)
