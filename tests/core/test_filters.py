"""Filters: what they mean, how they are written, what is refused, and the same by columns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.columns import Columns
from acclimate.core.filter_language import parse_filter
from acclimate.core.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    And,
    Eq,
    Exists,
    Filter,
    In,
    Metadata,
    Not,
    Or,
    Range,
    from_json,
    matches,
    to_json,
)
from acclimate.errors import UsageError

RICE: Metadata = {"crop": "rice", "year": 2021, "yield": 2.0, "organic": True, "tags": ("a", "b")}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('crop = "rice"', True),
        ("crop = 'rice'", True),
        ('crop == "Rice"', False),
        ("year = 2021.0", True),
        ('year = "2021"', False),
        ("organic = 1", False),
        ("organic = true", True),
        ("year = true", False),
        ("yield in (1, 2)", True),
        ("year > 2020 and year <= 2021", True),
        ("year < 2021", False),
        ('crop >= "r" and crop < "s"', True),
        ("crop > 5", False),
        ('tags = "b"', True),
        ('tags in ("c", "d")', False),
        ('not tags = "b"', False),
        ("exists(tags) and not exists(nothing)", True),
        ("nothing = 1 or nothing != 1", True),
        ("nothing < 5", False),
        ("year = 1 or year = 2021 and crop = 'maize'", False),
        ("(year = 1 or year = 2021) and crop = 'rice'", True),
        ("NOT year IN (1) AND crop not in ('maize')", True),
    ],
)
def test_what_a_filter_means(text: str, wanted: bool) -> None:
    assert matches(parse_filter(text), RICE) is wanted


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a=1", Eq("a", 1)),
        ("a.b-c != -1.5e3", Not(Eq("a.b-c", -1500.0))),
        ("`two words` >= 'it\\'s'", Range("two words", gte="it's")),
        ('a = "\\u5c0f\\"麦"', Eq("a", '小"麦')),
        ("größe = 3", Eq("größe", 3)),
        ("a=1 and b=2 or not c=3", Or((And((Eq("a", 1), Eq("b", 2))), Not(Eq("c", 3))))),
        ("exists = 1", Eq("exists", 1)),
        ("a in (true, 'x', 2)", In("a", (True, "x", 2))),
        ('{"and": [{"field": "a", "gte": 1, "lt": 5}, {"field": "b", "exists": true}]}',
         And((Range("a", gte=1, lt=5), Exists("b")))),
    ],
)  # fmt: skip
def test_how_it_is_written(text: str, tree: Filter) -> None:
    assert parse_filter(text) == tree
    assert from_json(json.loads(json.dumps(to_json(tree)))) == tree


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the end at character 1"),
        ("year", "the end at character 5"),
        ("year >= ", "the end at character 9"),
        ("year >= 2020 crop", "'crop' at character 14"),
        ("year ~ 3", "character 6"),
        ("year = rice", "'rice' at character 8"),
        ("(year = 1", "the end"),
        ("year in ()", "at character 10"),
        ("year in (1", "the end"),
        ('year = "open', "character 8"),
        ("year > true", "bounds"),
        ('a = "\\q"', "escapes of JSON"),
        ("= 1", "'=' at character 1"),
        ("year = 99999999999999999999", "64 bits"),
        ("year = 12abc", "character 8"),
        ("{}", "a filter is {}"),
        ('{"and": []}', "a filter is"),
        ('{"field": "a", "gt": 1, "lt": "x"}', "bounds"),
        ('{"field": "a", "eq": null}', "a value is"),
        ('{"field": "a", "eq": 1, "in": [1]}', "a filter is"),
        ('{"field": "a", "eq": [1]}', "a value is"),
        ("{broken", "no JSON"),
        ("(" * (MAX_DEPTH + 1) + "a=1" + ")" * (MAX_DEPTH + 1), "levels deep"),
        ("not " * 10_000 + "a=1", "levels deep"),
        ('{"not": ' * 100_000 + "1" + "}" * 100_000, "no JSON|levels deep"),
        (" or ".join(["a=1"] * (MAX_CONDITIONS + 1)), "1,001 conditions"),
        (f"a in ({', '.join(['1'] * (MAX_VALUES + 1))})", "10,001 values"),
    ],
    ids=lambda value: value[:16],
)  # fmt: skip
def test_what_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_filter(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


SCALARS = st.one_of(
    st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, 1.5, 2.0**60]), st.sampled_from(["", "a", "b", "1"]),
    st.sampled_from([2**60, 2**60 + 1]),
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.one_of(SCALARS, st.lists(SCALARS, min_size=1, max_size=3).map(tuple))
FIELDS = st.sampled_from(["x", "y", "z"])
METADATA = st.dictionaries(FIELDS, VALUES, max_size=3)
BOUND: st.SearchStrategy[Any] = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, "a", 2**60]))
CONDITIONS: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Eq, FIELDS, SCALARS),
    st.builds(In, FIELDS, st.lists(SCALARS, min_size=1, max_size=3).map(tuple)),
    st.builds(lambda field, name, bound: Range(field, **{name: bound}), FIELDS,
              st.sampled_from(["gt", "gte", "lt", "lte"]), BOUND),
    st.builds(Exists, FIELDS),
)  # fmt: skip
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.integers(0, 8), st.one_of(st.none(), METADATA))), st.lists(FILTERS, min_size=1))
def test_columns_decide_as_matches_does(changes: list[tuple[int, Metadata | None]], filters: list[Filter]) -> None:
    """Asked after every change, so that what is kept of earlier questions is tested too."""
    columns, rows = Columns(), {}
    for place, (row, metadata) in enumerate(changes):
        columns.set(row, metadata)
        rows[row] = metadata
        filter = filters[place % len(filters)]
        wanted = {row for row, values in rows.items() if values is not None and matches(filter, values)}
        assert set(np.flatnonzero(columns.mask(filter)).tolist()) == wanted


@given(FILTERS)
def test_the_json_form_is_whole(filter: Filter) -> None:
    assert repr(from_json(json.loads(json.dumps(to_json(filter))))) == repr(filter)
