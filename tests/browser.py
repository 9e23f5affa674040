"""Pages in headless Chromium: a tab that notices every error, and checks of what people need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = "ACCLIMATE_TEST_CHROMIUM"
"""Where a Chromium is, if not in the PATH."""
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 720}
REFUSED = "Failed to load resource"
"""What Chromium writes for every reply with an error's status, beside what the page makes of it."""

CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = rgb(getComputedStyle(element).backgroundColor);
      if (color[3] === 255) return color;
    }
    return rgb(getComputedStyle(document.documentElement).colorScheme.includes("dark") ? "#171715" : "#fff");
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest(".unseen, .skip, button:disabled")) continue;
    const [one, other] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)}: ${element.tagName} ${element.className} ${element.textContent}`);
  }
  return low;
}"""
UNNAMED = """() => {
  const text = (id) => document.getElementById(id)?.textContent ?? "";
  const named = (one) => (one.getAttribute("aria-labelledby") ?? "").split(" ").map(text).join("");
  const labels = (one) => [...(one.labels ?? [])].map((label) => label.textContent).join("");
  const own = (one) => one.matches("button, a, summary, [tabindex]") && one.textContent;
  const name = (one) => one.getAttribute("aria-label") || named(one) || labels(one) || own(one);
  const found = [...document.querySelectorAll("button, a, input, select, textarea, summary, dialog, [role=region]")];
  return found.filter((one) => !name(one)?.trim()).map((one) => one.outerHTML.slice(0, 120));
}"""
TWICE = """() => {
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  return ids.filter((id, place) => ids.indexOf(id) !== place);
}"""
BEYOND = """() => [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility()
  && !one.closest(".unseen, .skip, .scroll, svg") && one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.outerHTML.slice(0, 100))"""
SMALL = """() => [...document.querySelectorAll("button, select, summary, input:not([type=radio])")]
  .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 16)
  .map((one) => one.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, for one file of tests: while it is open, the thread can run no event loop of its own.

    Where there is none, the tests are skipped, visibly.
    """
    playwright: Any = pytest.importorskip("playwright.sync_api", reason="playwright is a package of [dev]")
    place = os.environ.get(CHROMIUM) or shutil.which("chromium") or shutil.which("chromium-browser")
    if place is None:
        pytest.skip(f"no chromium is here: install it, or say where it is by {CHROMIUM}")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=place, args=arguments)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, *, size: dict[str, int] = DESKTOP, dark: bool = False, locale: str = "en-GB"
) -> Iterator[Page]:
    """A tab of a fresh profile. At its end nothing may stand on the console, and no script may have failed."""
    context: Any = browser.new_context(
        viewport=size, color_scheme="dark" if dark else "light", locale=locale, reduced_motion="reduce"
    )
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    try:
        tab.goto(url)
        yield tab
    finally:
        context.close()
    assert [text for text in said if not text.startswith(REFUSED)] == []


def check_usable(tab: Page) -> None:
    """Names for all that can be operated, ids once, enough contrast, nothing beyond the right edge."""
    assert tab.evaluate(UNNAMED) == []
    assert tab.evaluate(TWICE) == []
    assert tab.evaluate(CONTRAST) == []
    assert tab.evaluate(BEYOND) == []
    assert tab.evaluate(SMALL) == []
