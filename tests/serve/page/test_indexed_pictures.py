"""The pictures of an index beside its texts: thumbnails with the user's key, with names, searched by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser import PHONE, check_usable, opened
from tests.serve.page.contract import ADAPTED, ARE_PICTURES, CAPTIONS, KEY, PICTURE, Contract, speaking
from tests.serve.page.test_picture import found

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
TEXTS_ONLY = f"not ({ARE_PICTURES})"
LOADED = """(count) => [...document.querySelectorAll("#pictures img")]
  .filter((one) => one.src.startsWith("blob:") && one.complete && one.naturalWidth === 160).length >= count"""

OTHERS = """(urls) => {
  const shown = [...document.querySelectorAll("#pictures img[src]")].map((one) => one.src);
  return shown.length === urls.length && !shown.some((url) => urls.includes(url));
}"""
SHOWN = """(urls) => Promise.all(urls.map((url) => new Promise((done) => {
  const image = new Image();
  image.onload = () => done(true);
  image.onerror = () => done(false);
  image.src = url;
})))"""


@pytest.fixture
def contract() -> Iterator[Contract]:
    with speaking(Contract(indexed=9)) as running:
        running.features["pictures"] = ["farm"]
        yield running


def asked(tab: Page, words: str, count: int = 8) -> None:
    tab.get_by_role("searchbox").fill(words)
    tab.keyboard.press("Enter")
    tab.wait_for_function(LOADED, arg=count)


def test_words_find_texts_and_pictures(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        tab.locator("#filters summary").click()
        tab.locator("#expression").fill("year > 2000 or organic = true")
        asked(tab, "when do I sow winter wheat")
        (strip,) = contract.strips
        own = "year > 2000 or organic = true"
        assert strip["filter"] == f"{ARE_PICTURES} and ({own})"
        assert {one["filter"] for one in contract.searches} == {f"{TEXTS_ONLY} and ({own})"}  # the base's, too
        assert (strip["query"], strip["mode"], strip["impression"]) == ("when do I sow winter wheat", "dense", False)
        assert sorted(contract.fetched) == [f"farm/{number:064x}" for number in range(9)]
        region = tab.get_by_role("region", name="Pictures")
        assert region.get_by_role("listitem").count() == 9
        first = region.get_by_role("button").first
        assert CAPTIONS[0] in first.inner_text() and "field/0" in first.inner_text()
        note = region.get_by_role("listitem").nth(1).locator(".note").inner_text()
        assert note.startswith("…/wheat/1-taken-in")  # the end of a whole path
        assert region.get_by_text("<b>drill</b>").count() == 3  # as text
        assert "projection" not in tab.locator("#results").inner_text()  # nor the hash, which is for programs
        assert region.locator("button:disabled").count() == 1 and region.locator(".gone").count() == 1
        assert found(tab) == ADAPTED and "exists" not in tab.url
        check_usable(tab)
        urls = tab.eval_on_selector_all("#pictures img[src]", "all => all.map((one) => one.src)")
        asked(tab, "yellow rust")
        tab.wait_for_function(OTHERS, arg=urls)
        assert len(urls) == 8 and set(tab.evaluate(SHOWN, urls)) == {False}  # the memory of the earlier ones is free
        new = tab.eval_on_selector_all("#pictures img[src]", "all => all.map((one) => one.src)")
        assert set(tab.evaluate(SHOWN, new)) == {True}


def test_a_picture_of_the_strip_is_searched_by(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        asked(tab, "rust")
        assert tab.get_by_role("group", name="Find by").is_visible()
        tab.locator("#pictures button").nth(2).focus()
        tab.keyboard.press("Enter")
        tab.locator("#picture-given").wait_for()
        tab.wait_for_function("() => document.activeElement.id === 'clear-picture'")
        assert contract.pictures[0]["model"] == "farm"
        assert contract.searches[-1]["vector"] == contract.strips[-1]["vector"] == PICTURE
        assert "query" not in contract.strips[-1] and contract.searches[-1]["filter"] == TEXTS_ONLY
        assert tab.get_by_role("group", name="Find by").is_hidden()  # a picture has no words
        tab.get_by_role("button", name="Search by words again").click()
        assert tab.get_by_role("group", name="Find by").is_visible()


def test_on_a_phone_in_chinese_in_the_dark_with_a_key(chromium: Browser, contract: Contract) -> None:
    contract.key = KEY
    with opened(chromium, contract.url, size=PHONE, dark=True, locale="zh-CN") as tab:
        tab.locator("#key").fill(KEY)
        tab.keyboard.press("Enter")
        asked(tab, "小麦条锈病")
        assert tab.get_by_role("region", name="图片").is_visible()
        check_usable(tab)
        tab.get_by_role("button", name="Switch to English").click()
        assert tab.locator("#pictures button").first.get_attribute("title") == "Search by this picture"


def test_without_a_projection_pictures_are_shown_and_not_searched_by(chromium: Browser, contract: Contract) -> None:
    del contract.features["pictures"]
    with opened(chromium, contract.url) as tab:
        asked(tab, "rust")
        assert tab.locator("#pictures button").count() == 0
        tab.locator("#pictures ul").focus()
        assert tab.evaluate("document.activeElement.localName") == "ul"
        check_usable(tab)


def test_an_index_without_pictures_is_searched_as_ever(chromium: Browser, contract: Contract) -> None:
    contract.indexed = 0
    with opened(chromium, contract.url) as tab:
        tab.get_by_role("searchbox").fill("rust")
        tab.keyboard.press("Enter")
        found(tab)
        assert "filter" not in contract.searches[0] and not contract.strips
        assert tab.locator("#pictures").is_hidden()
