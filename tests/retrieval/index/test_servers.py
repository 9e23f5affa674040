"""The contract of an index over the backends on servers, and what only they can do."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
from qdrant_client import QdrantClient

from acclimate.retrieval.index.opening import open_index
from acclimate.retrieval.index.postgres.connection import PostgresPlace
from acclimate.retrieval.index.postgres.index import PostgresIndex
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.qdrant.connection import parse_qdrant_url
from acclimate.retrieval.index.qdrant.index import QdrantIndex
from tests.retrieval.index.contract import Backend, Contract

QDRANT_URL = "ACCLIMATE_QDRANT_URL"
"""Environment variable: the url of a server for these tests, qdrant://host:6333/prefix-of-names."""
_NUMBERS = itertools.count()


def qdrant_in_memory() -> Backend:
    """The client's in-memory mode, which has no server to connect to again: only the index is made anew."""
    client = QdrantClient(":memory:")
    place = parse_qdrant_url("qdrant://memory/farm")
    return Backend(
        "qdrant in memory",
        new=lambda space: QdrantIndex.open(client, place, space),
        again=lambda index: QdrantIndex.open(client, place, index.space),
    )


def on_a_server(name: str, place: str) -> Backend:
    def again(index: Index) -> Index:
        index.close()
        return open_index(place, index.space)

    return Backend(name, new=lambda space: open_index(place, space), again=again)


@pytest.fixture(params=["qdrant in memory", "qdrant", "pgvector", "pgvector by its graph"])
def backend(request: pytest.FixtureRequest, postgres_place: Callable[[], PostgresPlace]) -> Backend:
    match request.param:
        case "qdrant in memory":
            return qdrant_in_memory()
        case "qdrant":
            if QDRANT_URL not in os.environ:
                pytest.skip(f"no Qdrant server: {QDRANT_URL} is not set")
            return on_a_server("qdrant", f"{os.environ[QDRANT_URL]}-{os.getpid()}-{next(_NUMBERS)}")
        case "pgvector":
            return on_a_server("pgvector", url_of(postgres_place()))
        case _:
            return by_its_graph(postgres_place())


def url_of(place: PostgresPlace) -> str:
    return f"{place.conninfo}&table={place.table}"


def by_its_graph(place: PostgresPlace) -> Backend:
    """Postgres with no row compared but those that the graph leads to."""

    def again(index: Index) -> Index:
        index.close()
        return PostgresIndex.open(place, index.space, exact_rows=0)

    return Backend("pgvector by its graph", lambda space: PostgresIndex.open(place, space, exact_rows=0), again)


class TestContract(Contract):
    """Runs the suite."""
