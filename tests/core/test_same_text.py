"""The one definition of "the same text": what it joins, what it keeps apart, and laws over any text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from acclimate.core.same_text import connected, same_text_key, same_texts

SENTENCE = "How do I treat rust in wheat, and when"

FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}

VARIANTS = {
    "upper case": str.upper,
    "title case": str.title,
    "full stop": lambda text: text + ".",
    "space and question mark": lambda text: text + " ?",
    "quotation marks": lambda text: f"“{text}”",
    "bullet": lambda text: "- " + text,
    "full width": lambda text: text.translate(FULL_WIDTH),
    "zero-width space": lambda text: "\u200b".join(text),
    "zero-width joiner": lambda text: text[:5] + "\u200d" + text[5:],
    "zero-width non-joiner": lambda text: text[:5] + "\u200c" + text[5:],
    "byte-order mark": lambda text: "\ufeff" + text,
    "soft hyphen": lambda text: text[:6] + "\xad" + text[6:],
    "variation selector": lambda text: text + "\ufe0f",
    "marks of direction": lambda text: "\u202a" + text + "\u202c\u200f",
    "entity": lambda text: text.replace(",", "&#44;"),
    "entity of a space": lambda text: text.replace(" ", "&nbsp;"),
    "entity, escaped twice": lambda text: text.replace(",", "&amp;#44;"),
    "line ends": lambda text: text.replace(" ", "\r\n\t"),
    "ideographic space": lambda text: text.replace(" ", "\u3000"),
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "NFKD": lambda text: unicodedata.normalize("NFKD", text),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    "text", [SENTENCE, "Äpfel, Öl und Straße", "Ελληνικά, ΣΊΣΥΦΟΣ", "ısı, İzmir", "小麦，锈病 怎么治", "ガード, が"]
)
def test_variants_are_the_same_text(name: str, text: str) -> None:
    assert same_text_key(VARIANTS[name](text)) == same_text_key(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a-b", "ab"),
        ("a-b", "a b"),
        ("can't", "can’t"),
        ("ISI", "ısı"),
        ("İZMİR", "izmir"),
        ("don´t", "dont"),
        ("don \u0301t", "dont"),
        ("COVID-19", "covid 19"),
        ("ﬁne", "fine"),
        ("m²", "m2"),
        ("1.5", "1,5"),
        ("2020-01-02", "2020 01 02"),
        ("-5", "−5"),
        ("-5", "5"),
        ("Maße", "MASSE"),
        ("R&amp;D", "r&d"),
        ("ﾊﾝｶｸ", "ハンカク"),
        ("小麦锈病", "小麦，锈病。"),
        ("...", "…"),
        ("\u200b", ""),
    ],
)
def test_these_are_the_same(one: str, other: str) -> None:
    assert same_text_key(one) == same_text_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C", "C++"),
        ("C", "C#"),
        ("x>1", "x<1"),
        ("12*4", "12/4"),
        ("5 %", "5"),
        ("5 €", "5 $"),
        ("1.5", "15"),
        ("10 20", "1020"),
        ("*.c", ".c"),
        ("café", "cafe"),
        ("wheat", "what"),
        ("?", "!"),
        ("--", "-"),
        ("?", ""),
        ("👍", "👎"),
    ],
)
def test_these_differ(one: str, other: str) -> None:
    assert same_text_key(one) != same_text_key(other)


@settings(max_examples=400, deadline=None)
@given(st.text())
@example("n´")
@example("&ampamp;lt;")
@example("a& lt b")
@example("1\u0301.\u20302")
@example("1 . \u0301 2")
def test_the_key_of_a_key_is_itself(text: str) -> None:
    key = same_text_key(text)
    assert same_text_key(key) == key


def test_the_key_of_every_character_is_its_own_key() -> None:
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            key = same_text_key(chr(code))
            assert key == chr(code) or same_text_key(key) == key, hex(code)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(categories=("Ll", "Nd"), max_codepoint=0x7F)), st.text("abc012", max_size=3))
def test_different_letters_and_digits_stay_different(text: str, more: str) -> None:
    assert same_text_key(text) == text
    assert (same_text_key(text + more) == same_text_key(text)) == (not more)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(categories=("Po", "Ps", "Pe", "Pd", "Sm", "So")), min_size=1))
def test_texts_of_signs_only_do_not_collapse(text: str) -> None:
    assert same_text_key(text) or not text.strip("\u2800\ufffc")


def test_equal_tokens_are_the_same_text() -> None:
    tokens = {"Café": b"1", "cafe": b"1", "tea": b"2", "T.E.A.": b"3", "no": None, "yes": None}
    same = same_texts([*tokens, "tea"], lambda texts: [tokens[text] for text in texts])
    assert same["Café"] == same["cafe"] == "cafe"
    assert same["tea"] == same["T.E.A."] == "tea"  # by characters, whatever the tokens say
    assert len(set(same.values())) == 4
    assert same_texts(["Café", "CAFÉ"]) == {"Café": "café", "CAFÉ": "café"}


def test_connected_joins_through_any_key() -> None:
    found = connected([("a", b"1"), ("b",), ("c", b"1"), ("b", "d"), ("d",)])
    assert found[0] == found[2] and found[1] == found[3] == found[4] and found[0] != found[1]
