"""Texts of about the same words that do not mean the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.wording import says_the_same, veto, words_of


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("trains from Rome to Oslo", "trains from Oslo to Rome", "order"),
        ("从北京到上海的火车", "从上海到北京的火车", "order"),
        ("Does A cause B?", "Does B cause A?", "order"),
        ("dose for 5 mg", "dose for 10 mg", "numbers"),
        ("two fields", "three fields", "numbers"),
        ("第二季度", "第三季度", "numbers"),
        ("Version 3.5", "version 3,5", "numbers"),
        ("can I sow now", "can I not sow now", "negation"),
        ("it isn’t wet", "it is wet", "negation"),
        ("可以播种吗", "不可以播种吗", "negation"),
        ("with sugar", "without sugar", "negation"),
    ],
)
def test_what_differs_is_named(one: str, other: str, why: str) -> None:
    assert veto(one, other) == veto(other, one) == why
    assert not says_the_same(one, other, 0.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("When do I sow winter wheat?", "when do i sow winter wheat"),
        ("What is the capital of Canada?", "Which city is Canada's capital?"),
        ("card payment fee charged", "why was I charged a fee"),
        ("How is rust treated?", "How to treat rust"),
        ("５ mg", "5 MG"),
        ("", ""),
    ],
)
def test_other_words_and_forms_are_no_difference(one: str, other: str) -> None:
    assert veto(one, other) is None


def test_words() -> None:
    assert words_of("Isn’t it 3.5 mg of 小麦?") == ["isn't", "it", "3.5", "mg", "of", "小", "麦"]


@given(st.text(max_size=40), st.text(max_size=40))
def test_it_is_symmetric_and_a_text_says_what_it_says(one: str, other: str) -> None:
    assert veto(one, one) is None and says_the_same(one, one, 1.0)
    assert veto(one, other) == veto(other, one)
    assert says_the_same(one, other, 0.9) == says_the_same(other, one, 0.9)


def test_the_same_in_about_the_same_words() -> None:
    one = "Winter wheat is sown in October, in rows of 12 cm."
    assert says_the_same(one, "Winter wheat is sown in October in rows of 12 cm", 0.9)
    assert not says_the_same(one, "Winter wheat is sown in October, in rows of 15 cm.", 0.5)
    assert not says_the_same(one, "Rust grows in rain.", 0.5)
