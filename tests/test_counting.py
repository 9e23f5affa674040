"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from acclimate.counting import are, counted


@pytest.mark.parametrize(
    ("number", "nouns", "said"),
    [
        (1, "rows", "1 row is"),
        (0, "rows", "0 rows are"),
        (1, "training queries", "1 training query is"),
        (2500, "queries", "2,500 queries are"),
    ],
)
def test_one_is_singular(number: int, nouns: str, said: str) -> None:
    assert f"{counted(number, nouns)} {are(number)}" == said
