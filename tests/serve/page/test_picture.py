"""A picture as the query: chosen or dropped, scaled down, encoded by the service, searched by its vector."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.browser import check_usable, opened
from tests.image_world import encoded, picture
from tests.serve.page.contract import ADAPTED, PICTURE, Contract, speaking

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
DROP = """(base64) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const dropped = new DataTransfer();
  dropped.items.add(new File([bytes], "leaf.png", { type: "image/png" }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def contract() -> Iterator[Contract]:
    with speaking(Contract()) as running:
        running.features["pictures"] = ["farm"]
        yield running


def found(tab: Page) -> list[str]:
    tab.locator("#adapted-list .hit").first.wait_for()
    ids: list[str] = tab.eval_on_selector_all("#adapted-list > .hit", "items => items.map((one) => one.dataset.id)")
    return ids


def test_a_chosen_picture_is_the_query_until_there_are_words_again(
    chromium: Browser, contract: Contract, tmp_path: Path
) -> None:
    (tmp_path / "leaf.jpg").write_bytes(encoded(picture(3, 1, side=1500)))
    with opened(chromium, contract.url) as tab:
        with tab.expect_file_chooser() as chooser:
            tab.get_by_role("button", name="Picture", exact=True).click()
        chooser.value.set_files(tmp_path / "leaf.jpg")
        assert found(tab) == ADAPTED
        (asked,), (search,) = contract.pictures, contract.searches
        sent = base64.b64decode(asked["input"][0]["image"].partition(",")[2])
        assert asked["model"] == "farm" and Image.open(io.BytesIO(sent)).size == (512, 512)
        assert (search["vector"], search["space"], search["mode"]) == (PICTURE, "5" * 64, "dense")
        assert "query" not in search and "adapter" not in search
        tab.get_by_text("nothing to compare").wait_for()
        assert tab.locator("#picture").is_visible() and not tab.locator("#base-column").is_visible()
        assert tab.locator("button.mark").count() == 0  # a mark belongs to words
        check_usable(tab)
        tab.get_by_role("searchbox").fill("when do I sow winter wheat")
        tab.keyboard.press("Enter")
        tab.locator("#base-list .hit").first.wait_for(state="attached")
        assert not tab.locator("#picture").is_visible() and contract.searches[1]["query"].startswith("when")


def test_a_dropped_picture_is_filtered_as_words_are(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        tab.locator("#filters summary").click()
        tab.locator("#expression").fill("crop == 'wheat'")
        tab.evaluate(DROP, base64.b64encode(encoded(picture(2, 0), "PNG")).decode())
        found(tab)
        assert contract.searches[-1]["filter"] == "crop == 'wheat'" and contract.searches[-1]["vector"] == PICTURE
        tab.get_by_role("button", name="Search by words again").click()
        assert tab.locator("#picture-given").is_hidden()


def test_a_service_without_pictures_offers_none(chromium: Browser, contract: Contract) -> None:
    del contract.features["pictures"]
    with opened(chromium, contract.url) as tab:
        tab.evaluate(DROP, base64.b64encode(encoded(picture(2, 0), "PNG")).decode())
        assert tab.get_by_role("button", name="Picture", exact=True).is_hidden() and not contract.pictures
