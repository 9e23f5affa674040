"""One headless Chromium for the tests of the page; they are skipped, visibly, where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = "ACCLIMATE_TEST_CHROMIUM"
"""Where a Chromium is, if not in the PATH."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, for one file of tests: while it is open, the thread can run no event loop of its own."""
    playwright: Any = pytest.importorskip("playwright.sync_api", reason="playwright is a package of [dev]")
    place = os.environ.get(CHROMIUM) or shutil.which("chromium") or shutil.which("chromium-browser")
    if place is None:
        pytest.skip(f"no chromium is here: install it, or say where it is by {CHROMIUM}")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=place, args=arguments)
        yield browser
        browser.close()
