"""A fixture for rooms of end-to-end tests: after every test, no run that it left may have a leak."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proof.leaks import find_leaks, prepared_runs

_checked: dict[str, float] = {}
"""Run -> when its newest file was written, as it was checked last."""


@pytest.fixture(autouse=True)
def no_run_leaks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Read every run that is new, or has changed, and fail with its leaks."""
    yield
    for run in prepared_runs(tmp_path_factory.getbasetemp()):
        newest = max((path.stat().st_mtime for path in run.rglob("*") if path.is_file()), default=0.0)
        if _checked.get(str(run)) != newest:
            _checked[str(run)] = newest
            leaks = find_leaks(run)
            assert not leaks, "\n".join(leaks[:20])
