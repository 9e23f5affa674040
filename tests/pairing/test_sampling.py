"""An even sample of a stream: its size, what it depends on, and that it goes on where it stopped."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from acclimate.pairing.sampling import Sample, restore, save


def sampled(rows: list[int], limit: int = 5, seed: int = 1) -> list[int]:
    sample = Sample(limit, seed, "x")
    for row in rows:
        sample.offer((str(row),), row)
    return list(sample)


@given(st.lists(st.integers(0, 50), max_size=40), st.randoms())
def test_it_depends_on_the_rows_alone(rows: list[int], shuffle: random.Random) -> None:
    found = sampled(rows)
    assert len(found) == min(5, len(set(rows))) == len(set(found))
    shuffle.shuffle(rows)
    assert sampled([*rows, *rows]) == found


def test_every_row_has_the_same_chance() -> None:
    drawn = [row for seed in range(400) for row in sampled(list(range(20)), seed=seed)]
    assert len(drawn) == 2000
    assert all(60 <= drawn.count(row) <= 140 for row in range(20)), "100 each, with a deviation of 9"


def test_it_goes_on_where_it_was_put_aside(tmp_path: Path) -> None:
    sample = Sample(5, 1, "x")
    for row in range(30):
        sample.offer((str(row),), row)
        if row in (9, 19):
            save(tmp_path, {"x": sample}, {"key": "k", "documents": row + 1})
    again = Sample(5, 1, "x")
    assert restore(tmp_path, {"x": again}, "another") == {}
    assert restore(tmp_path, {"x": again}, "k")["documents"] == 20 and again.offered == 20
    for row in range(20, 30):
        again.offer((str(row),), row)
    assert list(again) == list(sample) and again.offered == 30
    assert len(list(tmp_path.iterdir())) == 2, "of older states nothing is left"
