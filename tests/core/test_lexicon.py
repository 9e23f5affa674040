"""Terms in texts against a slow reference; terms out of texts by hand arithmetic, in Chinese and in English."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.lexicon import (
    CJK,
    Lexicon,
    TermRules,
    branching_entropy,
    cohesion,
    count_grams,
    extract_terms,
    fold,
    log_odds_z,
    topic_terms,
)

LETTER = rf"[^\W{CJK}]"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Trust the rust.", ["rust"]),
        ("trust", []),
        ("RUST, Ｒｕｓｔ and rust again", ["rust"]),
        ("小麦条锈病的防治", ["小麦", "条锈病", "锈病"]),
        ("小麦rust病", ["小麦", "rust"]),
        ("C++ or c", ["C++"]),
        ("an x-ray of  powdery\nmildew", ["x-ray", "powdery mildew"]),
        ("powdery, mildew", []),
        ("", []),
    ],
)
def test_find(text: str, found: list[str]) -> None:
    lexicon = Lexicon(["rust", "Rust", "小麦", "锈病", "条锈病", "C++", "x-ray", "powdery mildew", "  "])
    assert len(lexicon) == 7
    assert lexicon.find(text) == found
    assert lexicon.count(text) == len(found)


def found_slowly(terms: list[str], text: str) -> set[str]:
    """Every term by a regular expression of its own: it may not cut a word, at neither end."""
    found = set()
    for term in map(fold, terms):
        left = rf"(?<!{LETTER})" if re.match(LETTER, term) else ""
        right = rf"(?!{LETTER})" if re.search(rf"{LETTER}$", term) else ""
        if term and re.search(left + re.escape(term) + right, fold(text)):
            found.add(term)
    return found


WORLD = st.text(st.sampled_from("ab锈病 -+A１"), max_size=12)


@given(st.lists(WORLD, max_size=8), WORLD)
def test_find_equals_one_search_per_term(terms: list[str], text: str) -> None:
    assert {fold(term) for term in Lexicon(terms).find(text)} == found_slowly(terms, text)


def test_counts_stay_within_runs() -> None:
    counts = count_grams(["Crop rotation, of crops", "土壤ph值。土"], max_words=2, max_characters=2)
    assert counts.tokens == 4 + 5
    assert counts.grams == {
        "crop": 1, "rotation": 1, "crop rotation": 1, "of": 1, "crops": 1, "of crops": 1,
        "土": 2, "壤": 1, "土壤": 1, "ph": 1, "值": 1,
    }  # fmt: skip


def test_log_odds_by_hand() -> None:
    # Domain: "soil" 3 of 4 tokens; background: 1 of 6. With prior 1 the pseudo-counts are the pooled 4 of 10:
    # domain (3 + 4) / (4 + 10 - 3 - 4) = 7/7, background (1 + 4) / (6 + 10 - 1 - 4) = 5/11, variance 1/7 + 1/5.
    domain, background = count_grams(["soil soil soil is"]), count_grams(["soil is not what it was"])
    expected = math.log(1 / (5 / 11)) / math.sqrt(1 / 7 + 1 / 5)
    assert log_odds_z("soil", domain, background, prior=1.0) == pytest.approx(expected)
    assert log_odds_z("soil", background, domain, prior=1.0) == pytest.approx(-expected)


def test_cohesion_by_hand() -> None:
    # 8 characters; 土 2, 壤 2, 土壤 2, so log(2 * 8 / (2 * 2)). 有机肥 is 有|机肥 and 有机|肥, both log(1 * 8).
    counts = count_grams(["土壤。土壤", "有机肥。的"])
    assert counts.tokens == 8
    assert cohesion("土壤", counts) == pytest.approx(math.log(4))
    assert cohesion("有机肥", counts) == pytest.approx(math.log(8))
    assert cohesion("rust", count_grams(["rust"])) == math.inf


def test_branching_entropy_by_hand() -> None:
    # 机肥 always follows 有: no freedom to the left. 有机肥 follows 施, 施, 用 and the border, the entropy of
    # (2, 1, 1) / 4; it is followed by 好, 料 and two borders, four neighbours: log 4.
    texts = ["施有机肥好", "施有机肥", "用有机肥料", "有机肥"]
    entropy = branching_entropy(texts, ["机肥", "有机肥"])
    assert entropy["机肥"] == 0.0
    assert entropy["有机肥"] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_chinese_terms_are_whole_and_of_the_domain() -> None:
    crops, ills = ["小麦", "玉米", "大豆", "水稻", "油菜"], ["赤霉病", "红蜘蛛", "灰飞虱"]
    domain = [f"{crop}{verb}{ill}{end}" for crop in crops for ill in ills for verb in "防治除" for end in "了吗呢"]
    background = ["今天天气很好", "他去看了电影", "这本书好吗", "我们明天见", "你吃了吗"] * 20
    terms = extract_terms(domain, background, count=20, rules=TermRules(max_texts=0.5))
    assert set(terms) == {*crops, *ills}


def test_english_terms_and_expressions() -> None:
    subjects = ["wheat", "maize", "barley", "cotton", "potato", "clover"]
    ways = (("stop", "on"), ("treat", "in"), ("see", "near"))
    domain = [f"how to {verb} powdery mildew {where} the {word}" for word in subjects for verb, where in ways]
    domain += [f"the {word} is dry in a year without rain" for word in subjects for _ in range(4)]
    background = [
        f"how to {verb} the {noun} in a year" for verb in ("read", "sell", "paint") for noun in ("book", "car")
    ]
    terms = extract_terms(domain, background * 20, count=50, rules=TermRules(max_texts=0.5, min_cohesion=1.0))
    assert {"powdery", "mildew", "powdery mildew", *subjects} <= set(terms)
    assert not {"the", "how", "in", "mildew on", "in the", "year"} & set(terms)


def test_few_texts_say_nothing() -> None:
    assert extract_terms(["rust on wheat"], ["a book"], count=10) == []
    assert extract_terms([], [], count=10) == []
    assert extract_terms(["rust " * 10], [], count=10, rules=TermRules(max_texts=1.0)) == []  # nothing to differ from
    assert extract_terms(["rust " * 10], ["rust"], count=10, rules=TermRules(max_texts=1.0)) == []


def test_topics_are_told_apart_by_their_terms() -> None:
    rows = {"rust": "the leaf has {} spots", "weevil": "the {} eats a grain", "drought": "{} in the dry year"}
    topics = [[rows[term].format(term)] * 6 for term in rows]
    terms = topic_terms(topics, count=50, rules=TermRules(max_texts=0.5))
    assert {*rows, "leaf", "spots", "eats", "grain", "dry", "year"} <= set(terms)
    assert "the" not in terms
    assert topic_terms([["rust"] * 9], count=50) == []  # one topic
