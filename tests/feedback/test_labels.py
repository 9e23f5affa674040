"""From marks to labels; what clicks owe to their places; which queries judge, and how much one user can do."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.feedback.evidence import Taught, divide, steps_of
from acclimate.feedback.labels import Label, labels_of
from acclimate.feedback.position import (
    LEAST_CLICKS,
    MOST_OF_ONE_USER,
    Examination,
    PairClicks,
    click_weight,
    examination,
    with_swap,
)
from acclimate.feedback.records import StoredMark


def marks(*rows: tuple[str, str, str, str]) -> list[StoredMark]:
    """(user, query, document, mark) -> marks in this order."""
    return [
        StoredMark(seq, float(seq), query, document, mark, user, None)
        for seq, (user, query, document, mark) in enumerate(rows, start=1)
    ]


def test_the_last_judgement_of_a_user_counts_and_users_outvote_each_other() -> None:
    found, counts = labels_of(
        marks(
            ("ann", "Wheat rust", "a", "not_relevant"),
            ("ann", "wheat RUST!", "a", "relevant"),
            ("bob", "wheat rust", "a", "relevant"),
            ("eve", "wheat rust", "a", "not_relevant"),
            ("ann", "wheat rust", "b", "relevant"),
            ("bob", "wheat rust", "b", "not_relevant"),
            ("ann", "wheat rust", "c", "click"),
            ("eve", "wheat rust", "c", "not_relevant"),
            ("eve", "wheat rust", "d", "saved"),
        )
    )
    assert [(one.document, one.relevant, one.explicit, one.users) for one in found] == [
        ("a", True, True, frozenset({"ann", "bob"})),
        ("c", False, True, frozenset({"eve"})),
    ]
    assert counts == {
        "judgements": 7,
        "clicks": 1,
        "of another name: not learned from": 1,
        "users disagree: no label": 1,
    }


def test_clicks_count_once_a_user_by_the_weight_of_their_places() -> None:
    rows = [
        StoredMark(1, 0.0, "q", "a", "click", "ann", "i", rank=3, space="s"),
        StoredMark(2, 0.0, "q", "a", "click", "ann", "j", rank=1, space="s"),
        StoredMark(3, 0.0, "q", "a", "click", "bob", "k", rank=2, space="s"),
        StoredMark(4, 0.0, "q", "b", "click", "bob", "l", rank=1, space="elsewhere"),
        StoredMark(5, 0.0, "q", "c", "relevant", "bob", "l", rank=1, space="elsewhere"),
    ]
    found, counts = labels_of(rows, space="s", examined=Examination(2.0, 0.1, 500))
    assert [(one.document, one.weight, one.explicit) for one in found] == [("a", 9.0 + 4.0, False), ("c", 1.0, True)]
    assert counts["clicks in another space: not used"] == 1
    assert counts["judgements in another space: used"] == 1


def clicked(upper: int, lower: int, pair: int = 1, users: int = 100) -> list[PairClicks]:
    """So many clicks on both places, of so many users."""
    return [
        PairClicks(f"u{user}", pair, upper // users + (user < upper % users), lower // users + (user < lower % users))
        for user in range(users)
    ]


@pytest.mark.parametrize("severity", [0.0, 1.0, 2.0])
def test_examination_is_found_again_from_clicks_on_swapped_neighbours(severity: float) -> None:
    """Simulated: looking falls as rank^-severity; documents differ in how good they are."""
    draw = random.Random(0)
    good = {name: draw.uniform(0.2, 0.9) for name in "abcd"}
    rows: Counter[tuple[str, int, bool]] = Counter()
    for number in range(4_000):
        shown, pair = with_swap("abcd", 1.0, draw)
        assert pair is not None
        for place in (pair, pair + 1):
            if draw.random() < place**-severity * good[shown[place - 1]]:
                rows[f"u{number}", pair, place == pair] += 1
    found = examination(
        PairClicks(user, pair, up * count, (1 - up) * count) for (user, pair, up), count in rows.items()
    )
    assert found is not None
    assert abs(found.severity - severity) < 3 * found.error < 0.6
    assert found.clicks == rows.total()


def test_the_severity_of_one_pair_is_the_logarithm_of_its_odds() -> None:
    """Rank 1 has three times the clicks of rank 2: 2^s = 3; its error is 1 / (ln 2 sqrt(n p (1 - p)))."""
    found = examination(clicked(300, 100))
    assert found is not None
    assert found.severity == pytest.approx(math.log2(3))
    assert found.error == pytest.approx(1 / (math.log(2) * math.sqrt(400 * 0.75 * 0.25)))
    assert found.shares(3) == pytest.approx([1.0, 1 / 3, 3 ** -math.log2(3)])
    assert found.shifted(1.0).severity == pytest.approx(found.severity + found.error)
    assert found.shifted(-99.0).severity == 0.0


def test_too_few_clicks_say_nothing_and_extremes_have_a_bound() -> None:
    enough = int(LEAST_CLICKS)
    assert examination([]) is None
    assert examination(clicked(enough - 1, 0)) is None
    only_upper, only_lower = examination(clicked(enough, 0)), examination(clicked(0, enough))
    assert only_upper is not None and only_upper.severity == 5.0
    assert only_lower is not None and only_lower.severity == 0.0, "no place is looked at more often than one above"


def test_one_user_alone_moves_no_place() -> None:
    assert examination([PairClicks("flood", 1, 10_000, 0)]) is None
    honest = clicked(200, 100)
    plain, flooded = examination(honest), examination([*honest, PairClicks("flood", 1, 10_000, 0)])
    assert plain is not None and flooded is not None
    assert flooded.clicks == 300 + MOST_OF_ONE_USER
    assert flooded.severity == pytest.approx(math.log2(220 / 100))


def test_a_click_weighs_the_inverse_of_how_often_its_place_is_looked_at() -> None:
    examined = Examination(1.0, 0.1, 500)
    assert click_weight(4, examined) == 4.0
    assert click_weight(99, examined) == 10.0
    assert click_weight(3, None) == click_weight(None, examined) == 1.0


@given(share=st.floats(0, 1), hits=st.lists(st.integers(), unique=True, max_size=8), seed=st.integers(0, 99))
def test_a_swap_changes_two_neighbours_at_most(share: float, hits: list[int], seed: int) -> None:
    shown, pair = with_swap(hits, share, random.Random(seed))
    assert sorted(shown) == sorted(hits)
    moved = [place for place, (before, after) in enumerate(zip(hits, shown, strict=True)) if before != after]
    assert moved == [] or (pair is not None and moved == [pair - 1, pair])


def labels(owners: Sequence[str]) -> list[Label]:
    """A query each, of these users."""
    return [
        Label(f"query {seq}", f"d{seq}", True, True, frozenset({user}), seq) for seq, user in enumerate(owners, start=1)
    ]


def test_later_queries_are_new_unseen_and_on_one_side_only() -> None:
    users = [f"u{number % 5}" for number in range(20)]
    again = Label("query 1", "d99", True, True, frozenset({"u9"}), 99)
    found = divide(
        [*labels(users), again],
        later_fraction=0.5,
        decided_until=12,
        least_users=2,
        seen=lambda query: query == "query 20",
        judges=lambda _: True,
        seed=0,
    )
    assert [one.query for one in found.later] == [f"query {number}" for number in range(13, 20)]
    assert {one.key for one in found.earlier} & {one.key for one in found.later} == set()
    assert again in found.earlier, "a query that was marked early stays there"
    assert found.later_users == 5


def test_labels_that_cannot_judge_are_learned_from() -> None:
    """The later half of those that can, which are the even ones; the others are learned from."""
    rows = labels([f"u{number % 5}" for number in range(10)])
    found = divide(
        rows,
        later_fraction=0.5,
        decided_until=0,
        least_users=2,
        seen=lambda _: False,
        judges=lambda label: label.seq % 2 == 0,
        seed=0,
    )
    assert [one.seq for one in found.later] == [6, 8, 10]
    assert [one.seq for one in found.earlier] == [1, 2, 3, 4, 5, 7, 9]


def test_a_flood_by_one_user_judges_nothing_alone_and_little_beside_others() -> None:
    def later(owners: Sequence[str]) -> Counter[str]:
        found = divide(
            labels(owners),
            later_fraction=1.0,
            decided_until=0,
            least_users=5,
            seen=lambda _: False,
            judges=lambda _: True,
            seed=0,
        )
        return Counter(user for one in found.later for user in one.users)

    assert later(["flood"] * 10_000) == {}
    honest = [f"u{number % 10}" for number in range(100)]
    mixed = later(["flood"] * 10_000 + honest)
    assert mixed["flood"] <= mixed.total() / 5
    assert mixed.total() - mixed["flood"] == 100


@settings(deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), min_size=1),
    per_user=st.integers(1, 4),
    per_step=st.integers(1, 16),
    seed=st.integers(0, 9),
)
def test_no_user_has_more_than_their_share_of_a_step(
    sizes: dict[str, int], per_user: int, per_step: int, seed: int
) -> None:
    rows = [
        Taught(
            f"q{user}{number % 7}", f"d{user}{number}", frozenset({user, "z"} if number % 9 == 0 else {user}), 1.0, True
        )
        for user, size in sizes.items()
        for number in range(size)
    ]
    used: Counter[Taught] = Counter()
    for step in steps_of(rows, steps=50, per_step=per_step, per_user=per_user, uses=3, seed=seed):
        assert 0 < len(step) <= per_step
        assert max(Counter(user for row in step for user in row.users).values()) <= per_user
        assert len({row.query for row in step}) == len({row.document for row in step}) == len(step)
        used.update(step)
    assert max(used.values()) <= 3


def test_ten_thousand_rows_of_one_user_are_a_twentieth_of_a_step() -> None:
    flood = [Taught(f"f{number}", f"x{number}", frozenset({"flood"}), 1.0, True) for number in range(10_000)]
    honest = [Taught(f"q{n}", f"d{n}", frozenset({f"u{n % 30}"}), 1.0, True) for n in range(300)]
    steps = list(steps_of([*flood, *honest], steps=20, per_step=64, per_user=6, uses=4, seed=1))
    assert len(steps) == 20
    assert all(sum("flood" in row.users for row in step) <= 6 for step in steps)
