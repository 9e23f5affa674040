"""The report in a browser: read in any light and width, with nothing on the console."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from acclimate.report.folder import read_run
from acclimate.report.html import render
from tests.browser import DESKTOP, PHONE, check_usable, opened
from tests.report.sample_run import write_sample_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_report_can_be_read_in_any_light_and_width(
    chromium: Browser, tmp_path: Path, size: dict[str, int], dark: bool
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(read_run(write_sample_run(tmp_path / "farm"))), encoding="utf-8")
    with opened(chromium, page.as_uri(), size=size, dark=dark) as tab:
        tab.evaluate("() => { for (const one of document.querySelectorAll('details')) one.open = true; }")
        check_usable(tab)
        assert tab.locator("#reproduce pre").first.is_visible()
