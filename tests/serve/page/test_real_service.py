"""The page over the service itself: a tiny model, runs with indexes, a reranker, a language model, keys."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import acclimate
from acclimate.feedback.store import FeedbackStore
from acclimate.models.encoder import Encoder
from acclimate.runs.run_folder import RunFolder
from tests.browser import check_usable, opened
from tests.chat_server import ChatServer
from tests.image_world import encoded, picture, tiny_graph
from tests.serve.http.domains import CROPS, SKY, make_domains
from tests.serve.http.test_access import FILE, READER
from tests.serve.http.test_pictures import add_projection
from tests.serve.http.world import adapter_of, make_world, served
from tests.serve.page.test_page import focused, ids

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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


def test_texts_and_pictures_of_an_index_and_a_search_by_one_of_them(chromium: Browser, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    encoder = Encoder.load(str(world.base), device="cpu", dtype="float32")
    add_projection(world.farm, tiny_graph(tmp_path / "tower"), encoder.with_adapter(adapter_of(encoder, seed=1)))
    (tmp_path / "photos").mkdir()
    for number in range(8):
        (tmp_path / "photos" / f"leaf_{number}.jpg").write_bytes(encoded(picture(number, 1)))
    acclimate.index(world.farm, tmp_path / "photos", images=True, device="cpu")
    (tmp_path / "keys.toml").write_text(FILE)
    loaded = """() => {
      const images = [...document.querySelectorAll("#pictures img")];
      return images.length === 8 && images.every((one) => one.complete && one.naturalWidth === 40);
    }"""
    with (
        served(world, world.farm, keys=str(tmp_path / "keys.toml"), feedback=True) as client,
        opened(chromium, str(client.base_url)) as tab,
    ):
        tab.get_by_label("API key").fill(READER)
        tab.keyboard.press("Enter")
        tab.get_by_text("what moved").wait_for()
        tab.get_by_role("searchbox").fill("wheat leaf")
        tab.keyboard.press("Enter")
        tab.wait_for_function(loaded)
        assert not any(name.startswith("picture:") for name in ids(tab, "adapted"))
        strip = tab.get_by_role("region", name="Pictures")
        tab.get_by_text("no vectors of the base").wait_for()
        strip.get_by_role("button", name="leaf 5").click()
        tab.locator("#picture-given").wait_for()
        tab.wait_for_function("() => document.activeElement.id === 'clear-picture'")
        tab.wait_for_function(loaded)
        assert strip.get_by_role("listitem").first.inner_text().startswith("leaf 5")  # itself is nearest
        assert len(ids(tab, "adapted")) == 10 and not any(name.startswith("picture:") for name in ids(tab, "adapted"))
        tab.locator("#filters summary").click()
        assert tab.locator("#fields .name").all_inner_texts() == ["year"]
        check_usable(tab)
    with closing(FeedbackStore(RunFolder(world.farm).feedback, read_only=True)) as store:
        shown = list(store.impressions())
    assert [one.query for one in shown] == ["wheat leaf"] and "picture:" not in str(shown)  # the strip counts as none


def test_several_runs_are_routed_answered_from_and_marked(chromium: Browser, tmp_path: Path) -> None:
    """What the page shows is what the service says; only what a searcher was shown is kept as an impression."""
    world = make_world(tmp_path)
    runs, _ = make_domains(world, tmp_path / "domains")
    sent: list[dict[str, Any]] = []
    with (
        ChatServer(lambda _: "Rice and wheat [1], water [2] and [99].") as llm,
        served(world, *runs.values(), llm=llm.url, feedback=True) as client,
        opened(chromium, str(client.base_url)) as tab,
    ):
        tab.on("request", lambda one: sent.append(one.post_data_json) if one.url.endswith("/v1/search") else None)
        tab.get_by_text("what moved").wait_for()
        assert [one.inner_text() for one in tab.locator("#index option").all()] == list(runs)
        for mode in ("mix", "fuse", "auto"):
            text = {"mix": spanning(client), "fuse": CROPS[0], "auto": CROPS[3]}[mode]
            reply = asked(client, text, mode)
            tab.get_by_role("searchbox").fill(text)
            tab.locator("#adapter").select_option(mode)  # does again what is on the page already
            if not sent:
                tab.get_by_role("searchbox").press("Enter")
            settled(tab)
            assert ids(tab, "adapted") == [hit["id"] for hit in reply["hits"]], mode
            assert ids(tab, "base") == [hit["id"] for hit in asked(client, text, "base")["hits"]], mode
            shown = tab.locator("#route").inner_text()
            assert reply["route"]["reason"] in shown, mode
            assert tab.locator("#adapted-title").inner_text() == f"Routed · {' + '.join(reply['route']['weights'])}"
            for name, share in reply["route"]["weights"].items():
                assert name in shown and f"{share:.0%}" in shown, mode
            check_usable(tab)
        tab.get_by_role("button", name="Answer", exact=True).click()
        tab.get_by_role("button", name="Source 2").click()
        assert focused(tab) == ids(tab, "adapted")[1]
        answered = tab.locator("#answer").inner_text()
        assert "1 citation named no retrieved document" in answered and "Rice and wheat" in answered
        chat = llm.requests[-1]
        assert chat["stream"] and "[1] " in chat["messages"][1]["content"]
        marked = [ids(tab, "adapted")[0], next(one for one in ids(tab, "base") if one not in ids(tab, "adapted"))]
        for side, name in zip(("adapted", "base"), marked, strict=True):
            tab.locator(f"#{side}-list [data-id={name}] .relevant").click()
            tab.locator(f"#{side}-list [data-id={name}] [aria-pressed=true]").wait_for()
        check_usable(tab)
    searches = [one for one in sent if one.get("impression", True)]
    assert {one["adapter"] for one in searches} == {"auto", "mix", "fuse"} and len(sent) == 2 * len(searches)
    with closing(FeedbackStore(RunFolder(runs["crops"]).feedback, read_only=True)) as store:
        kept = list(store.impressions())
        assert [one.query for one in kept] == [one["query"] for one in searches]
        marks = {one.document: one.impression for one in store.marks()}
    assert marks == {marked[0]: kept[-1].id, marked[1]: None}


def asked(client: httpx.Client, text: str, adapter: str) -> dict[str, Any]:
    """What the service says to the page's request; it counts as shown to nobody."""
    body = {"index": "crops", "query": text, "adapter": adapter, "explain": True, "impression": False}
    reply: dict[str, Any] = client.post("/v1/search", json=body).raise_for_status().json()
    return reply


def spanning(client: httpx.Client) -> str:
    """A query that two adapters share."""
    for text in (f"{one} {other}" for one in CROPS for other in SKY):
        body = {"index": "crops", "query": text, "adapter": "mix", "explain": True, "impression": False}
        reply = client.post("/v1/search", json=body)  # refused where one of both sides is near
        if reply.status_code == 200 and {"crops", "sky"} <= set(reply.json()["route"]["weights"]):
            return text
    raise AssertionError("no query is shared")


def settled(tab: Page) -> None:
    """Wait until a search is over."""
    tab.wait_for_function("() => document.getElementById('results').getAttribute('aria-busy') === 'false'")
    tab.locator("#base-list .hit").first.wait_for()
