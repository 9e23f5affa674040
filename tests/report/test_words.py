"""How numbers and verdicts are put into words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.report.words import (
    NO_BREAK,
    count,
    duration,
    excerpt,
    interval,
    lexical_note,
    p_value,
    percent,
    score,
    script_language,
    signed,
    tone_of,
    verdict,
)


def spaced(text: str) -> str:
    return text.replace(NO_BREAK, " ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.84, "0.8 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (283, "4 min 43 s"), (3720, "1 h 02 min"), (math.nan, "–")],
)
def test_duration(seconds: float, words: str) -> None:
    assert spaced(duration(seconds)) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (10_347, "10,347"),
        (0.93, "0.93"),
        (4785.3, "4,785"),
        (3.0, "3"),
        (True, "yes"),
        (None, "–"),
        ([0, 0.5], "0, 0.5"),
    ],
)
def test_count(value: object, words: str) -> None:
    assert count(value) == words


def test_numbers_have_a_true_minus_and_absent_ones_a_dash() -> None:
    assert (score(0.52071), signed(-0.01234), signed(0.5, 2)) == ("0.5207", "−0.0123", "+0.50")
    assert (score(None), score(math.nan), signed(True)) == ("–", "–", "–")
    assert spaced(interval({"low": -0.003, "high": 0.011})) == "−0.0030 to +0.0110"
    assert interval({"value": 0.1}) == ""
    assert [spaced(p_value(value)) for value in (0.0004, 0.0412, None)] == ["p < 0.001", "p = 0.041", ""]
    assert spaced(percent(0.0552)) == "5.52 %"


def test_a_difference_has_a_tone_only_where_its_interval_leaves_zero_out() -> None:
    bounds = [(0.01, 0.02), (-0.02, -0.01), (-0.01, 0.01), (0.0, 0.01)]
    assert [tone_of({"low": low, "high": high}) for low, high in bounds] == ["good", "bad", "", ""]


def test_an_excerpt_says_how_long_the_whole_is() -> None:
    assert excerpt("x" * 10_000, 20) == "x" * 20 + " … (10,000 characters)"
    assert excerpt("two\n\nlines\x00\x1b[0m") == "two lines [0m"


@given(st.text(), st.integers(1, 50))
def test_an_excerpt_is_one_line_of_bounded_length(text: str, limit: int) -> None:
    shown = excerpt(text, limit)
    assert len(shown) <= limit + len(" … (1,000,000 characters)")
    assert shown.isprintable() or not any(ord(letter) < 32 for letter in shown)


@pytest.mark.parametrize(
    ("text", "tag"), [("水稻", "zh"), ("イネの病気", "ja"), ("벼 병해", "ko"), ("rice", ""), ("", "")]
)
def test_the_script_gives_the_language(text: str, tag: str) -> None:
    assert script_language(text) == tag


def test_the_verdict_names_the_number_the_interval_and_what_to_do() -> None:
    delta = {"value": 0.2105, "low": 0.198, "high": 0.2231, "p": 0.0005}
    test = {"queries": 1234, "base": {"ndcg@10": 0.5207}, "adapted": {"ndcg@10": 0.7312}, "delta": {"ndcg@10": delta}}
    better = verdict("better", test, 0.95)
    assert spaced(better.reason) == (
        "On 1,234 held-out queries, NDCG@10 went from 0.5207 to 0.7312: +0.2105 "
        "(95 % interval +0.1980 to +0.2231, p < 0.001)."
    )
    assert (better.tone, better.advice) == ("good", "Use the adapted model.")
    worse, none = verdict("worse", test, None), verdict("no evidence", test, None)
    assert worse.advice == "Keep the base model." and worse.tone == "bad"
    assert "can be chance" in none.reason and none.advice.startswith("Keep the base model")


def test_the_verdict_on_pairs_speaks_of_spearman() -> None:
    test = {"pairs": 500, "base": {"spearman": 0.6, "roc_auc": 0.9}, "adapted": {"spearman": 0.7}, "delta": {}}
    assert verdict("better", test, 0.95).reason == "On 500 held-out pairs, Spearman went from 0.6000 to 0.7000: –."


def test_where_bm25_is_better_that_comes_first() -> None:
    delta = {"value": 0.075, "low": 0.02, "high": 0.13, "p": 0.01}
    base, adapted, bm25 = ({"ndcg@10": value} for value in (0.128, 0.203, 1.0))
    test = {"queries": 100, "base": base, "adapted": adapted, "bm25": bm25, "delta": {"ndcg@10": delta}}
    behind = {"value": -0.797, "low": -0.85, "high": -0.74, "p": 0.0005}
    report = {"recommend": "bm25", "unsuited": "", "against_bm25": behind}
    found = verdict("better", test, 0.95, report)
    assert found.claim == "Plain search by words (BM25) is better than either model."
    assert spaced(found.reason).startswith(
        "NDCG@10 is 1.0000 by BM25, +0.7970 above the better model (95 % interval +0.7400 to +0.8500, p < 0.001). On"
    )
    assert found.advice == (
        "Search by words (BM25), or by both (hybrid search). Of the two models: use the adapted model."
    )
    unread = verdict("better", test, 0.95, {**report, "unsuited": "75% of the tokens are unknown to the model."})
    assert unread.claim.endswith("(BM25) is better than either model, which cannot read these texts.")
    assert "75% of the tokens are unknown" in unread.reason and "take another model" in unread.advice
    alone = verdict("better", test, 0.95, {"recommend": "other", "unsuited": "75% of the tokens are unknown."})
    assert (alone.claim, alone.advice) == ("This model cannot read these texts.", "Take another model.")
    assert verdict("better", test, 0.95, {"recommend": "adapted", "unsuited": ""}).advice == "Use the adapted model."


def test_what_bm25_does_with_chinese_is_said() -> None:
    """It said "No known language", and not what a word is there."""
    chosen = {"variant": "words as they stand", "chosen": "the only one for this language", "tried": {}}
    said = lexical_note({**chosen, "language": None})
    assert said == (
        "BM25: words as they stand, Chinese, Japanese and Korean characters in pairs (the only one for this language)."
    )
    assert lexical_note({**chosen, "language": "english"}).startswith("BM25: English, words as they stand (")
