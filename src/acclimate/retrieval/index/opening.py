"""From a folder or an address to an index."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from acclimate.core.analyser import Analyser
from acclimate.errors import MissingExtraError, UsageError
from acclimate.retrieval.index.header import Header
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Stored
from acclimate.text_use import SpaceId


class Target(NamedTuple):
    """An index that a move fills."""

    filled: Index
    publish: Callable[[], str | None]
    """Ends the move: searches find this index from now on. Gives the name of the one that they found before, if that is
    another one, which is kept."""


class Foreign(Protocol):
    """An index that somebody else made and writes, opened to be adopted."""

    def sample(self, count: int) -> list[Stored]:
        """Return some documents, drawn by chance."""

    def count(self) -> int:
        """Return how many documents there are."""

    def record(self, header: Header) -> None:
        """Record with the index what it is."""

    def close(self) -> None:
        """Close the connection."""


class Backend(NamedTuple):
    """What a backend opens; all of them say what may go wrong as `open_index` does."""

    open: Callable[[str, SpaceId | None, Analyser | None], Index]
    """(place, space, analyser) -> index, as `open_index` has them."""
    target: Callable[[str, SpaceId, Analyser], Target]
    """The same for an index that a move fills."""
    adopt: Callable[[str, Header], Foreign] | None
    """(place, what it would be) -> somebody else's index; None where nobody else makes any."""


def _local() -> Backend:
    from acclimate.retrieval.index.local.index import LocalIndex

    def opened(place: str, space: SpaceId | None, analyser: Analyser | None) -> Index:
        return LocalIndex.open(Path(place.removeprefix("file://")), space, analyser)

    return Backend(opened, lambda place, space, analyser: Target(opened(place, space, analyser), lambda: None), None)


def _qdrant() -> Backend:
    _require("An index on Qdrant", "qdrant", "qdrant_client")
    from acclimate.retrieval.index.qdrant import index

    def target(place: str, space: SpaceId, analyser: Analyser) -> Target:
        beside = index.qdrant_beside(place, space, analyser)
        return Target(beside, beside.publish)

    return Backend(index.open_qdrant, target, index.adopt_qdrant)


def _postgres() -> Backend:
    _require("An index in Postgres", "postgres", "psycopg", "pgvector")
    from acclimate.retrieval.index.postgres import index

    def target(place: str, space: SpaceId, analyser: Analyser) -> Target:
        table = index.open_postgres(place, space, analyser, graph=False)
        return Target(table, table.publish)

    return Backend(index.open_postgres, target, index.adopt_postgres)


BACKENDS: dict[str, Callable[[], Backend]] = {
    "": _local,
    "file": _local,
    "qdrant": _qdrant,
    "qdrants": _qdrant,
    "postgresql": _postgres,
    "postgres": _postgres,
}
"""Scheme of the address -> its backend; a folder has none. Each imports its own libraries, when it is asked for."""


def open_index(place: str | Path, space: SpaceId | None = None, analyser: Analyser | None = None) -> Index:
    """Open an index, or make one.

    Args:
        place: a folder, or an address with a scheme of `BACKENDS`.
        space: of the encoder that will write or search; an index that is not there is made for it. None opens what is
            there, whatever its space.
        analyser: how texts become words, of an index that is made; one that is there keeps its own.

    Raises:
        UsageError: a scheme that no backend has; there is no index, and no space to make one for; another space.
        StorageError: it cannot be read or reached.
        MissingExtraError: the backend's client is not installed.
    """
    return backend_of(place).open(str(place), space, analyser)


def backend_of(place: str | Path) -> Backend:
    """The backend of a place.

    Raises:
        UsageError: a scheme that no backend has.
        MissingExtraError: the backend's client is not installed.
    """
    scheme = urlsplit(str(place)).scheme if "://" in str(place) else ""
    if scheme not in BACKENDS:
        possible = ", ".join(f"{name}://…" for name in BACKENDS if name)
        raise UsageError(f"an index has the address {str(place)[:60]!r}", possible=f"a folder, {possible}")
    return BACKENDS[scheme]()


def _require(feature: str, extra: str, *packages: str) -> None:
    if any(importlib.util.find_spec(package) is None for package in packages):
        raise MissingExtraError(feature, extra)
