"""The page in a browser: searching, comparing, answers, marks, filters, keys; by keyboard, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from tests.browser import DESKTOP, PHONE, check_usable, opened
from tests.serve.page.contract import ADAPTED, BASE, KEY, TEXTS, Contract, speaking

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
QUERY = "when do I sow winter wheat"


@pytest.fixture
def contract() -> Iterator[Contract]:
    with speaking(Contract()) as running:
        yield running


def searched(tab: Page, query: str = QUERY) -> None:
    """Type a query, and wait for both rankings."""
    tab.get_by_role("searchbox").fill(query)
    tab.keyboard.press("Enter")
    tab.locator("#base-list .hit").first.wait_for(state="attached")


def ids(tab: Page, side: str) -> list[str]:
    found: list[str] = tab.eval_on_selector_all(f"#{side}-list > .hit", "items => items.map((one) => one.dataset.id)")
    return found


def badge(tab: Page, side: str, name: str) -> str:
    return tab.locator(f"#{side}-list [data-id={name}] .badge .unseen").inner_text()


def focused(tab: Page) -> str:
    """What has the focus: the id of a document, of an element, or a button's text."""
    code = "() => { const one = document.activeElement; return one.dataset.id || one.id || one.textContent.trim(); }"
    found: str = tab.evaluate(code)
    return found


def test_both_rankings_and_what_moved(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        searched(tab)
        assert (ids(tab, "adapted"), ids(tab, "base")) == (ADAPTED, BASE[:10])
        assert badge(tab, "adapted", "sowing") == "up from rank 2 to 1"
        assert badge(tab, "adapted", "rust") == "down from rank 1 to 7"
        assert badge(tab, "adapted", "zh-sow") == "up from rank 12 to 4"  # the base has it below those that are shown
        assert badge(tab, "base", "hops") == "gone: not among the first 10 of the adapted ranking"
        assert tab.locator("#adapted-note").inner_text() == "6 up, 3 down, 1 unmoved"
        assert tab.locator("#moves path").count() == len(set(ADAPTED) & set(BASE[:10]))
        assert tab.locator("#adapted-list [data-id=sowing] mark").all_inner_texts() == ["Winter", "wheat"]
        assert tab.locator("#adapted-list [data-id=till] .text").inner_text().startswith("<b>Tillers</b> &")
        tab.locator("#adapted-list [data-id=rust]").hover()
        assert tab.locator("#base-list .lit").get_attribute("data-id") == "rust"
        assert [one.get("adapter") for one in contract.searches] == [None, "base"]
        assert [one.get("impression") for one in contract.searches] == [None, False]
        check_usable(tab)


def test_an_index_without_vectors_of_the_base_is_compared_on_candidates(chromium: Browser, contract: Contract) -> None:
    contract.models = ["farm"]
    with opened(chromium, contract.url) as tab:
        tab.get_by_label("meaning").check(force=True)
        searched(tab)
        assert ids(tab, "base") == [one for one in BASE if one in ADAPTED]
        assert "no vectors of the base" in tab.locator("#base-note").inner_text()
        tab.get_by_label("words").check(force=True)
        tab.get_by_text("nothing to compare").wait_for()
        assert not tab.locator("#base-column").is_visible()


def test_everything_by_keyboard(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        assert focused(tab) == "query"
        tab.keyboard.type(QUERY)
        tab.keyboard.press("Enter")
        tab.locator("#base-list .hit").first.wait_for()
        tab.keyboard.press("ArrowDown")
        assert focused(tab) == ADAPTED[0]
        tab.keyboard.press("ArrowDown")
        assert focused(tab) == ADAPTED[1]
        tab.keyboard.press("ArrowLeft")  # the same document in the other ranking
        assert focused(tab) == ADAPTED[1] and tab.locator("#base-list .hit:focus").count() == 1
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("r")
        pressed = tab.locator("[aria-pressed=true]")
        pressed.first.wait_for()
        assert pressed.count() == 2  # in both rankings
        assert tab.locator("#said").inner_text() == "Marked “Relevant”."
        one = {"impression_id": "i-farm", "query": QUERY, "id": ADAPTED[1], "mark": "relevant", "user": None}
        assert contract.marks == [one]
        for _ in range(5):
            tab.keyboard.press("ArrowDown")
        assert focused(tab) == "rust"
        tab.keyboard.press("Enter")
        assert tab.locator("#adapted-list [data-id=rust].opened").count() == 1
        tab.keyboard.press("Tab")
        assert focused(tab) == "Less"
        tab.keyboard.press("Escape")
        assert focused(tab) == "query"
        tab.keyboard.press("Shift+Tab")
        tab.keyboard.press("/")
        assert focused(tab) == "query" and tab.get_by_role("searchbox").input_value() == QUERY
        assert contract.marks[1]["mark"] == "click"


def test_the_tab_key_goes_through_the_page_in_its_order(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        searched(tab)
        order = []
        for _ in range(30):
            tab.keyboard.press("Tab")
            order.append(focused(tab))
        wanted = ["Search", "ask-answer", "adapter", "rerank", "compare", "Filters", BASE[0], ADAPTED[0]]
        places = [order.index(one) for one in wanted]
        assert places == sorted(places)
        stops = [one for one in order[: places[-1] + 1] if one in TEXTS]
        assert stops == [BASE[0], ADAPTED[0]]  # one in each ranking


def test_an_answer_is_streamed_and_its_citations_lead_to_their_documents(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        searched(tab)
        tab.get_by_role("button", name="Answer", exact=True).click()
        tab.get_by_role("button", name="Source 1").click()
        assert focused(tab) == "sowing" and tab.locator("#adapted-list .hit:focus").count() == 1
        tab.get_by_role("button", name="Source 2").click()  # not among the results: it is among the sources
        assert focused(tab) == "manual"
        text = tab.locator("#answer").inner_text()
        assert "1 citation named no retrieved document" in text and "812 tokens read, 24 written" in text
        assert contract.answers == [{"query": QUERY, "index": "farm", "stream": True}]
        check_usable(tab)
        contract.answered = False
        tab.get_by_role("button", name="Answer", exact=True).click()
        tab.get_by_text("The documents do not answer this.").wait_for()


def test_an_answer_can_be_stopped(chromium: Browser, contract: Contract) -> None:
    contract.slow_s = 0.3
    with opened(chromium, contract.url) as tab:
        searched(tab)
        tab.get_by_role("button", name="Answer", exact=True).click()
        tab.get_by_text("Sow winter").first.wait_for()
        tab.get_by_role("button", name="Stop").click()
        tab.get_by_text("Stopped.").wait_for()
        assert tab.get_by_role("button", name="Answer", exact=True).is_visible()


def test_the_route_and_its_weights(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        searched(tab)
        assert not tab.locator("#route").is_visible()
        tab.get_by_label("Adapter").select_option("mix")
        tab.get_by_text("farm is nearest").wait_for()
        text = tab.locator("#route").inner_text()
        assert "82%" in text and "distance 0.210" in text and "mix by the query" in text
        check_usable(tab)


def test_filters(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        searched(tab)
        tab.locator("#filters summary").click()
        tab.get_by_role("button", name="wheat").click()
        tab.get_by_role("button", name="barley").click()
        tab.get_by_label("year, at least").fill("2016")
        tab.get_by_label("Filter expression").fill('not crop = "rice"')
        tab.keyboard.press("Enter")
        tab.get_by_text("3 filters").wait_for()
        tab.wait_for_function("() => document.querySelectorAll('#adapted-list .hit').length < 10")
        wanted = 'crop in ("wheat", "barley") and year >= 2016 and (not crop = "rice")'
        assert contract.searches[-1]["filter"] == wanted
        assert parse_qs(tab.url.partition("#")[2])["filter"] == [wanted]
        check_usable(tab)
        tab.get_by_label("Filter expression").fill("bad (")
        tab.keyboard.press("Enter")
        alert = tab.get_by_role("alert").filter(has_text="cannot be read at character 3")
        alert.wait_for()
        assert "Write: year >= 2020" in alert.inner_text()
        tab.get_by_role("button", name="Clear filters").click()
        alert.wait_for(state="hidden")
        assert not tab.get_by_text("3 filters").is_visible()


def test_a_search_can_be_kept_as_an_address(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url + "#q=winter+wheat&mode=dense&adapter=auto") as tab:
        tab.locator("#adapted-list .hit").first.wait_for()
        assert tab.get_by_role("searchbox").input_value() == "winter wheat"
        assert (contract.searches[0]["mode"], contract.searches[0]["adapter"]) == ("dense", "auto")
        searched(tab, "rust")
        tab.go_back()
        tab.wait_for_function("() => document.getElementById('query').value === 'winter wheat'")
        assert "q=" not in tab.evaluate("() => performance.getEntriesByType('resource').map((one) => one.name).join()")


def test_a_key_is_asked_for_and_kept_in_the_tab_only(chromium: Browser, contract: Contract) -> None:
    contract.key = KEY
    with opened(chromium, contract.url) as tab:
        dialog = tab.get_by_role("dialog", name="This service asks for a key")
        dialog.wait_for()
        assert focused(tab) == "key"
        check_usable(tab)
        tab.keyboard.type("wrong")
        tab.keyboard.press("Enter")
        tab.get_by_text("does not know this key").wait_for()
        tab.keyboard.type(KEY)
        tab.keyboard.press("Enter")
        dialog.wait_for(state="hidden")
        searched(tab)
        assert tab.evaluate("() => [sessionStorage.length, Object.values(localStorage).join()]") == [1, ""]
        assert KEY not in tab.url
        tab.reload()
        tab.locator("#adapted-list .hit").first.wait_for()
        contract.key = "another-" + KEY  # the key is not known any more
        tab.get_by_role("searchbox").fill("rust")
        tab.keyboard.press("Enter")
        tab.get_by_text("does not know this key").wait_for()


def test_a_search_that_is_sent_while_the_models_are_loaded_is_not_lost(chromium: Browser, contract: Contract) -> None:
    contract.loading = 1
    with opened(chromium, contract.url) as tab:
        searched(tab)
        assert contract.loading == 0 and len(contract.searches) == 2


def test_a_service_that_loads_is_waited_for(chromium: Browser, contract: Contract) -> None:
    contract.loading = 1
    with opened(chromium, contract.url) as tab:
        tab.get_by_text("The models are being loaded").wait_for()
        tab.get_by_text("what moved").wait_for()


def test_only_what_the_service_has_is_shown(chromium: Browser, contract: Contract) -> None:
    contract.features = {"rerank": None}
    contract.models = ["base"]
    with opened(chromium, contract.url) as tab:
        tab.get_by_text("Ask in your own words.").wait_for()
        tab.get_by_role("searchbox").fill(QUERY)
        tab.keyboard.press("Enter")
        tab.locator("#adapted-list .hit").first.wait_for()
        for name in ("#ask-answer", "#rerank-choice", "#adapter-choice", "#compare-choice", "#base-column", "#shown"):
            assert not tab.locator(name).is_visible(), name
        assert tab.locator(".mark").count() == tab.locator("mark").count() - tab.locator("mark").count()
        assert len(contract.searches) == 1


def test_a_mark_that_is_refused_is_told(chromium: Browser, contract: Contract) -> None:
    contract.refuses_marks = True
    with opened(chromium, contract.url) as tab:
        searched(tab)
        tab.locator("#adapted-list .relevant").first.click()
        tab.wait_for_function("() => document.getElementById('said').textContent.includes('no such impression')")
        assert tab.locator("[aria-pressed=true]").count() == 0


def test_a_document_that_only_the_base_found_is_marked_by_the_query(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        searched(tab)
        for name in ("hops", "rust"):
            tab.locator(f"#base-list [data-id={name}] .relevant").click()
            tab.locator(f"#base-list [data-id={name}] [aria-pressed=true]").wait_for()
        assert [(one["id"], one["impression_id"]) for one in contract.marks] == [("hops", None), ("rust", "i-farm")]
        assert {one["query"] for one in contract.marks} == {QUERY}


def test_what_is_served(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url) as tab:
        tab.get_by_role("button", name="Service").click()
        dialog = tab.get_by_role("dialog", name="This service")
        text = dialog.inner_text()
        for part in ("all-MiniLM-L6-v2", "tiny-reranker", "farm", "123.5 kB", "base, farm", "75%", "embeddings"):
            assert part in text, part
        check_usable(tab)
        tab.keyboard.press("Escape")
        assert focused(tab) == "open-service"
        tab.get_by_role("button", name="Shortcuts").click()
        assert tab.get_by_role("dialog", name="Keyboard shortcuts").is_visible()
        tab.get_by_role("button", name="Close").click()
        assert not tab.get_by_role("dialog").is_visible()


def test_chinese_by_the_browser_and_by_the_switch(chromium: Browser, contract: Contract) -> None:
    with opened(chromium, contract.url, locale="zh-CN") as tab:
        assert tab.evaluate("() => document.documentElement.lang") == "zh-Hans"
        searched(tab, "冬小麦播种")
        assert tab.locator("#adapted-list [data-id=zh-sow] mark").all_inner_texts() == ["冬小麦", "播种"]
        assert badge(tab, "adapted", "sowing") == "从第 2 名升至第 1 名"
        tab.get_by_role("button", name="Switch to English").click()
        assert badge(tab, "adapted", "sowing") == "up from rank 2 to 1"
        tab.reload()
        assert tab.get_by_role("button", name="Search", exact=True).is_visible()
        texts = tab.evaluate("async () => (await import('/page/words.js')).TEXTS")
        assert texts["en"].keys() == texts["zh"].keys()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_can_be_read_in_any_light_and_width(
    chromium: Browser, contract: Contract, size: dict[str, int], dark: bool
) -> None:
    with opened(chromium, contract.url, size=size, dark=dark) as tab:
        check_usable(tab)
        searched(tab)
        tab.locator("#filters summary").click()
        tab.get_by_role("button", name="Answer", exact=True).click()
        tab.get_by_role("button", name="Source 1").wait_for()
        tab.locator("#adapted-list .relevant").first.click()
        tab.locator("#adapted-list [aria-pressed=true]").wait_for()
        check_usable(tab)
        if size == PHONE:
            assert tab.locator("#adapted-list").is_visible() and not tab.locator("#base-list").is_visible()
            tab.locator("#shown label").first.click()
            assert tab.locator("#base-list").is_visible() and not tab.locator("#adapted-list").is_visible()
            check_usable(tab)
        background = "() => getComputedStyle(document.body).backgroundColor"
        assert tab.evaluate(background) == ("rgb(23, 23, 21)" if dark else "rgb(253, 252, 250)")
        tab.locator("#theme").click()
        assert tab.evaluate(background) == "rgb(253, 252, 250)"
        tab.locator("#theme").click()
        assert tab.evaluate(background) == "rgb(23, 23, 21)"
