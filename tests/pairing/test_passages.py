"""Documents in passages: what asks for them is no part of them, and nothing else is lost."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from acclimate.data.documents import SourceDocument
from acclimate.data.weak import units
from acclimate.pairing.passages import PassagedDocument, passaged
from acclimate.pairing.sources import pairs_of

PROSE = "Winter wheat is sown from late September on, as soon as the soil can carry the drill after the rain."
MANUAL = f"""# Growing wheat

{PROSE}

## Seed rates and dates

{PROSE} Later sowing takes more seed.

## When do I sow?

In autumn, before the first hard frost, after the beet is lifted.

Setext too
----------

{PROSE}

```
# no heading of the document, but of the code in it, which stays as it is
```

Q: How deep does the seed go?
A: Three to four centimetres, and deeper in dry soil.
"""


def document(text: str, title: str = "", name: str = "d") -> SourceDocument:
    return SourceDocument(name, text, {"title": title} if title else {}, "file", 1)


def test_headings_and_questions_ask_for_what_stands_below_them() -> None:
    found = passaged(document(MANUAL), 128)
    assert [(it.text, it.passage.text[:12]) for it in found.headings] == [
        ("Growing wheat", "Winter wheat"),
        ("Seed rates and dates", "Winter wheat"),
        ("Setext too", "Winter wheat"),
    ]
    assert [(it.text, it.passage.text[:9]) for it in found.questions] == [
        ("When do I sow?", "In autumn"),
        ("How deep does the seed go?", "Three to "),
    ]
    text = " ".join(passage.text for passage in found.passages)
    assert "When do I sow" not in text and "Seed rates" not in text and "A:" not in text
    assert "# no heading of the document" in text
    assert [passage.id for passage in found.passages] == [f"d#{number}" for number in range(len(found.passages))]


def test_chinese_questions_and_headings() -> None:
    text = "小麦播种\n\n冬小麦一般在九月下旬到十月上旬播种，过早过晚都不好。\n\n"
    text += "问：播种多深？\n答：三到四厘米，旱地可以稍深一些。\n"
    found = passaged(document(text), 128)
    assert [(it.text, it.passage.text[:3]) for it in found.headings] == [("小麦播种", "冬小麦")]
    assert [(it.text, it.passage.text[:3]) for it in found.questions] == [("播种多深？", "三到四")]


def test_the_title_is_taken_off_the_text() -> None:
    found = passaged(document(f"Wheat {PROSE}", "Wheat"), 128)
    assert found.title == "Wheat" and [it.text for it in found.passages] == [PROSE]


def test_prose_has_no_headings() -> None:
    found = passaged(
        document(f"{PROSE}\n{PROSE}\n\n{PROSE} Is it? Yes, and a line ends here\nin the middle of it."), 128
    )
    assert not found.headings and not found.questions


@given(
    st.lists(st.sampled_from([PROSE, "## A heading here", "", "Short", "What is it about?", "- a list"]), max_size=12)
)
def test_no_word_is_lost_but_of_headings_and_scraps(lines: list[str]) -> None:
    found = passaged(document("\n".join(lines)), 32)
    told = sum(passage.text.count("drill") for passage in found.passages)
    assert told == sum(line == PROSE for line in lines)
    assert all(5 <= units(passage.text) <= 32 for passage in found.passages)


def made(cut: PassagedDocument, source: str) -> list[tuple[str, str]]:
    return [(pair.query, pair.positive) for pair in pairs_of(cut, source, 0)]


def test_every_positive_is_a_passage_and_a_crop_stands_in_it() -> None:
    cut = passaged(document(MANUAL * 3, "Wheat for all"), 40)
    texts = {passage.text for passage in cut.passages}
    for source in ("title", "heading", "faq", "neighbours", "crop"):
        pairs = made(cut, source)
        assert pairs and {positive for _, positive in pairs} <= texts, source
    assert all(query in re.sub(r"\s+", " ", positive) for query, positive in made(cut, "crop"))
    assert not any(query in positive for query, positive in (*made(cut, "faq"), *made(cut, "heading")))
    assert made(cut, "crop") == made(cut, "crop"), "a function of the document and the seed"


def test_a_short_heading_takes_the_title_with_it() -> None:
    cut = passaged(document(f"# Yields\n\n{PROSE}", "Winter wheat in the north"), 128)
    assert made(cut, "heading") == [("Winter wheat in the north Yields", PROSE)]
    assert made(passaged(document(f"# Yields\n\n{PROSE}"), 128), "heading") == []
