"""The contract of an index, over every backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from acclimate.retrieval.index.opening import open_index
from acclimate.retrieval.index.protocol import Index
from acclimate.text_use import SpaceId
from tests.retrieval.index.contract import Backend, Contract


def local(folder: Path) -> Backend:
    def new(space: SpaceId) -> Index:
        return open_index(folder / "index", space)

    def again(index: Index) -> Index:
        index.close()
        return open_index(folder / "index", index.space)

    return Backend("local", new, again)


BACKENDS: dict[str, Callable[[Path], Backend]] = {"local": local}
"""Name -> what makes the suite's `Backend` of a folder of its own. Another backend is another entry."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return BACKENDS[request.param](tmp_path)


class TestContract(Contract):
    """Runs the suite."""
