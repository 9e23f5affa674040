"""Which characters of a text are marked for a query, by hand and by law."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.analyser import Analyser, located_words, words
from acclimate.core.highlights import MAX_CHARACTERS, highlights

ENGLISH = Analyser("english", stop_words=True, stemming=True)


def marked(text: str, query: str, analyser: Analyser = ENGLISH) -> list[str]:
    return [text[start:end] for start, end in highlights(text, query, analyser)]


@pytest.mark.parametrize(
    ("text", "query", "found"),
    [
        # By stems, as the index counts words.
        ("Farmers were sowing winter wheat.", "when do I sow wheat", ["sowing", "wheat"]),
        ("The dogs run; a dog ran.", "running dogs", ["dogs", "run", "dog"]),
        # Stop words are not marked, but where there is nothing else.
        ("What is the time of the year?", "what is the weather", []),
        ("to be or not to be", "to be", ["to", "be", "to", "be"]),
        # Chinese by pairs, which become one mark where they touch.
        ("冬小麦的锈病怎么防治", "小麦锈病", ["小麦", "锈病"]),
        ("小麦锈病很常见", "小麦锈病防治", ["小麦锈病"]),
        ("下雨了", "雨", ["雨"]),
        # What NFKC changes is marked as it stands, also where it changes the length.
        ("the ﬁnal ＷＨＥＡＴ price", "final wheat", ["ﬁnal", "ＷＨＥＡＴ"]),
        ("ｶﾞﾗｽの瓶", "ガラス", ["ｶﾞﾗｽ"]),
        ("cafe\u0301 noir", "café", ["cafe\u0301"]),
        ("𝔴heat 🌾 and wheat", "wheat", ["𝔴heat", "wheat"]),
        ("", "wheat", []),
        ("wheat", "…", []),
    ],
)
def test_what_is_marked(text: str, query: str, found: list[str]) -> None:
    assert marked(text, query) == found


def test_without_a_language_words_are_marked_as_they_stand() -> None:
    assert marked("sowing the sown to sow", "the sow", Analyser()) == ["sow"]


def test_a_long_text_is_looked_at_as_far_as_a_page_shows_it() -> None:
    text = "wheat " + "x " * MAX_CHARACTERS + "wheat"
    assert highlights(text, "wheat", ENGLISH) == [(0, 5)]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text(
    "aA é’'1.,_ 小麦锈ｶﾞﾞか\u0301ﬁΣσς\r\n🌾İ", max_size=40
)


@given(TEXTS)
def test_located_words_are_the_words(text: str) -> None:
    """But for Korean letters of the compatibility block, which NFKC joins across what people see as one character."""
    if any("\u3130" <= character <= "\u318f" or "\uffa0" <= character <= "\uffdc" for character in text):
        return
    found = located_words(text)
    assert [one.word for one in found] == words(text)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(set(words(text[one.start : one.end])) & {one.word} for one in found if one.word.isascii())


@given(TEXTS, TEXTS)
def test_marks_are_apart_and_in_order(text: str, query: str) -> None:
    spans = highlights(text, query, Analyser())
    places = [place for span in spans for place in span]
    assert places == sorted(set(places))
    assert all(0 <= place <= len(text) for place in places)
