"""One tiny world, and one service over it, for all tests of the routes."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from acclimate.models.encoder import Encoder
from acclimate.runs.resolve import load
from tests.serve.http.world import World, make_world, served


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def client(world: World) -> Iterator[httpx.Client]:
    """Of a service with two runs and a reranker, without keys."""
    with served(world, world.farm, world.bank, reranker=world.reranker) as client:
        yield client


@pytest.fixture(scope="session")
def farm(world: World) -> Encoder:
    """The encoder of the run, by itself."""
    return load(world.farm, base=str(world.base), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def base(world: World) -> Encoder:
    return Encoder.load(str(world.base), device="cpu", dtype="float32")
