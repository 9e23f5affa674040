"""From a folder or an address to an index."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from acclimate.core.analyser import Analyser
from acclimate.errors import MissingExtraError, UsageError
from acclimate.retrieval.index.protocol import Index
from acclimate.text_use import SpaceId

Opener: TypeAlias = Callable[[str, SpaceId | None, Analyser | None], Index]
"""(place, space, analyser) -> index, as `open_index` has them."""


def _local(place: str, space: SpaceId | None, analyser: Analyser | None) -> Index:
    from acclimate.retrieval.index.local.index import LocalIndex

    return LocalIndex.open(Path(place.removeprefix("file://")), space, analyser)


def _qdrant(place: str, space: SpaceId | None, analyser: Analyser | None) -> Index:
    _require("qdrant_client", "An index on Qdrant", "qdrant")
    from acclimate.retrieval.index.qdrant.index import open_qdrant

    return open_qdrant(place, space, analyser)


def _postgres(place: str, space: SpaceId | None, analyser: Analyser | None) -> Index:
    _require("psycopg", "An index in Postgres", "postgres")
    _require("pgvector", "An index in Postgres", "postgres")
    from acclimate.retrieval.index.postgres.index import open_postgres

    return open_postgres(place, space, analyser)


BACKENDS: dict[str, Opener] = {
    "": _local,
    "file": _local,
    "qdrant": _qdrant,
    "qdrants": _qdrant,
    "postgresql": _postgres,
    "postgres": _postgres,
}
"""Scheme of the address -> what opens it; a folder has none. Each imports its own libraries, when it is asked for."""


def _require(package: str, feature: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(feature, extra)


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
    scheme = urlsplit(str(place)).scheme if "://" in str(place) else ""
    if scheme not in BACKENDS:
        possible = ", ".join(f"{name}://…" for name in BACKENDS if name)
        raise UsageError(f"an index has the address {str(place)[:60]!r}", possible=f"a folder, {possible}")
    return BACKENDS[scheme](str(place), space, analyser)
