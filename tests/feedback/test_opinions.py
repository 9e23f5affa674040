"""What is said of two rankings by those who have seen only one of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.same_text import same_text_key
from acclimate.errors import StorageError
from acclimate.feedback.opinions import Opinion, gains, opinions, read_opinions, write_opinions
from acclimate.feedback.position import Examination
from acclimate.feedback.records import Impression, StoredMark
from acclimate.types import Run

SECOND = 1 / math.log2(3)
"""The gain of the second place."""


def run(*names: str) -> Run:
    """A ranking of one query, best first."""
    return {"q": {name: -float(place) for place, name in enumerate(names)}}


def said(
    shown: Sequence[str] = (), *, user: str = "ann", clicked: dict[str, int] | None = None, **judged: float
) -> Opinion:
    return Opinion("q", user, tuple(shown), judged, clicked or {})


def test_only_documents_that_both_rankings_would_have_shown_count() -> None:
    """b is third of c, a, b, d for the candidate; of a, b, which both have among four, it is second."""
    found = gains([said("abxy", b=1.0)], run("a", "b", "x", "y"), run("c", "a", "b", "d"), None)
    assert found["q"] == pytest.approx((SECOND, SECOND))
    gone = gains([said("abxy", b=1.0)], run("a", "b", "x", "y"), run("c", "a", "d", "e", "b"), None)
    assert gone["q"] == (0.0, 0.0)


def test_a_click_is_weighed_by_how_often_its_place_is_looked_at_and_a_judgement_is_not() -> None:
    before, candidate = run("a", "b"), run("b", "a")
    examined = Examination(2.0, 0.1, 500)
    assert gains([said("ab", clicked={"b": 2})], before, candidate, examined)["q"] == pytest.approx((4 * SECOND, 4.0))
    assert gains([said("ab", b=1.0)], before, candidate, examined)["q"] == pytest.approx((SECOND, 1.0))
    assert gains([said("ab", b=-1.0)], before, candidate, examined)["q"] == pytest.approx((-SECOND, -1.0))


def test_users_add_up_and_the_searches_of_one_are_averaged() -> None:
    before, candidate = run("a", "b"), run("b", "a")
    often = [said("ab", user="often", a=1.0) for _ in range(9)]
    found = gains([*often, said("ab", b=1.0)], before, candidate, None)
    assert found["q"] == pytest.approx((1 + SECOND, 1 + SECOND))


def test_what_was_judged_without_a_search_counts_by_its_place_among_ten() -> None:
    names = [f"d{number}" for number in range(12)]
    found = gains([said(d10=1.0, d1=1.0)], run(*names), run(*reversed(names)), None)
    assert found["q"] == pytest.approx((SECOND, SECOND)), "each has one of them at place 2, the other below ten"


@given(before=st.permutations("abcdef"), candidate=st.permutations("abcdef"), value=st.sampled_from([1.0, -1.0]))
def test_where_all_is_marked_alike_no_order_is_better(before: list[str], candidate: list[str], value: float) -> None:
    one, other = gains([said("abcdef", **dict.fromkeys("abcdef", value))], run(*before), run(*candidate), None)["q"]
    assert one == pytest.approx(other)


@given(candidate=st.permutations("abcdef"), severity=st.floats(0.1, 1.2))
def test_clicks_that_say_nothing_but_places_make_no_order_better(candidate: list[str], severity: float) -> None:
    """Everything that is looked at is clicked on: in expectation, the first order wins without the weights."""
    examined = Examination(severity, 0.1, 500)
    shown = run(*"abcdef")

    def expected(known: Examination | None) -> float:
        total = 0.0
        for rank, name in enumerate("abcdef", start=1):
            before, after = gains([said("abcdef", clicked={name: rank})], shown, run(*candidate), known)["q"]
            total += rank**-severity * (after - before)
        return total

    assert expected(examined) == pytest.approx(0.0, abs=1e-9)
    assert expected(None) <= 1e-9
    if candidate != list("abcdef"):
        assert expected(None) < 0


def marks(*rows: tuple[str, str, str, str | None, int | None]) -> list[StoredMark]:
    """(user, document, mark, impression, rank) -> marks of one query in this order."""
    return [
        StoredMark(
            seq, float(seq), "Wheat rust", document, mark, user, impression, rank, None, "s" if impression else None
        )
        for seq, (user, document, mark, impression, rank) in enumerate(rows, start=1)
    ]


NAMES = {same_text_key("wheat rust"): "q1"}


def impressions(ids: Iterable[str]) -> dict[str, Impression]:
    there = {name: Impression(name, 0.0, "wheat rust", ("a", "b", "c"), "", "s") for name in ("i", "j")}
    return {name: there[name] for name in ids}


def test_opinions_are_gathered_by_user_and_search() -> None:
    rows = marks(
        ("ann", "a", "click", "i", 1),
        ("ann", "b", "click", "i", 2),
        ("ann", "b", "relevant", "i", 2),
        ("ann", "b", "not_relevant", "j", 2),
        ("bob", "c", "click", "i", 3),
        ("bob", "c", "saved", "i", 3),
        ("eve", "c", "relevant", None, None),
        ("eve", "b", "click", None, None),
    )
    found = opinions(rows, impressions, NAMES, space="s", clicks=True)
    assert found == [
        Opinion("q1", "ann", ("a", "b", "c"), {}, {"a": 1}),
        Opinion("q1", "bob", ("a", "b", "c"), {}, {"c": 3}),
        Opinion("q1", "ann", ("a", "b", "c"), {"b": -1.0}, {}),
        Opinion("q1", "eve", (), {"c": 1.0}, {}),
    ]
    assert [one.user for one in opinions(rows, impressions, NAMES, space="s", clicks=False)] == [
        "ann",
        "eve",
    ]
    assert [one.user for one in opinions(rows, impressions, NAMES, space="t", clicks=True)] == [
        "ann",
        "eve",
    ]
    assert opinions(rows, impressions, {"other": "q1"}, space="s", clicks=True) == []


def test_opinions_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [said("ab", b=1.0), said(a=-1.0), said("ab", clicked={"a": 1})]
    write_opinions(tmp_path / "opinions.jsonl", rows)
    assert read_opinions(tmp_path / "opinions.jsonl") == rows
    (tmp_path / "opinions.jsonl").write_text("{\n")
    with pytest.raises(StorageError, match="damaged"):
        read_opinions(tmp_path / "opinions.jsonl")
