"""The page over the service itself: a tiny model, a run with an index, a reranker, keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import check_usable, opened
from tests.serve.http.test_access import FILE, READER
from tests.serve.http.world import make_world, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


def test_a_run_is_searched_compared_filtered_and_reranked(chromium: Browser, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    keys = tmp_path / "keys.toml"
    keys.write_text(FILE)
    with (
        served(world, world.farm, world.bank, reranker=world.reranker, keys=str(keys)) as client,
        opened(chromium, str(client.base_url)) as tab,
    ):
        tab.get_by_label("API key").fill(READER)
        tab.keyboard.press("Enter")
        tab.get_by_text("what moved").wait_for()
        tab.get_by_role("searchbox").fill("wheat leaf")
        tab.keyboard.press("Enter")
        tab.get_by_text("no vectors of the base").wait_for()  # the farm's adapter changes documents
        for side in ("base", "adapted"):
            assert tab.locator(f"#{side}-list > .hit").count() == 10
        own = client.post(
            "/v1/search",
            json={"index": "farm", "query": "wheat leaf"},
            headers={"authorization": f"Bearer {READER}"},
        ).json()["hits"]
        shown = tab.eval_on_selector_all("#adapted-list > .hit", "items => items.map((one) => one.dataset.id)")
        assert shown == [hit["id"] for hit in own]
        assert {"wheat", "leaf"} >= set(" ".join(tab.locator("#adapted-list mark").all_inner_texts()).split())
        check_usable(tab)
        tab.locator("#filters summary").click()
        tab.get_by_label("year, at least").fill("2025")
        tab.keyboard.press("Enter")
        tab.get_by_text("5 documents in").wait_for()
        tab.get_by_label("Rerank").check()
        tab.get_by_text("a reranked search cannot be compared").wait_for()
        tab.get_by_label("Index").select_option("bank")
        tab.get_by_role("alert").filter(has_text="bank has no index").wait_for()
        tab.get_by_role("button", name="Service").click()
        text = tab.get_by_role("dialog", name="This service").inner_text()
        assert "the run bank has no index" in text and "queries and documents" in text
