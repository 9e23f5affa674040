"""Folds of a cross-validation: every group of pairs is tested once, by what has not seen it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.configs import PrepareConfig
from acclimate.core.same_text import connected
from acclimate.data.records import Record
from acclimate.data.split import deal, split_sources
from acclimate.data.splits import Fold, Source, Splits
from acclimate.errors import DataError
from tests.data.test_split import record, texts

FOLDS = 4


def folds_of(records: list[Record], number: int = FOLDS, seed: int = 0, **config: object) -> list[Splits]:
    source = Source(records, "retrieval", frozenset(), PrepareConfig(**config))  # type: ignore[arg-type]
    return [split_sources([source], seed, fold=Fold(fold, number))[0] for fold in range(1, number + 1)]


links = st.lists(st.tuples(st.integers(0, 45), st.integers(0, 45)), max_size=15)


@settings(deadline=None, max_examples=30)
@given(links, st.integers(0, 3))
def test_every_component_is_tested_exactly_once_and_shares_no_text_with_its_training(
    drawn: list[tuple[int, int]], seed: int
) -> None:
    own = [(index, index) for index in range(40)]
    records = [record(f"q{one}", f"d{other}") for one, other in dict.fromkeys([*own, *drawn])]
    roots = connected([(item.anchor, item.positive) for item in records])
    large = {root for root in roots if roots.count(root) * FOLDS > len(records)}
    tested: list[int] = []
    for splits in folds_of(records, seed=seed):
        train, dev, test = (texts(splits, split) for split in ("train", "dev", "test"))
        assert not test & (train | dev) and not train & dev
        assert splits.records["train"] and splits.records["test"]
        assert sum(map(len, splits.records.values())) == len(records)  # nothing is lost
        tested += {roots[records.index(item)] for item in splits.records["test"]}
    assert sorted(tested) == sorted(set(roots) - large)


def test_folds_are_of_about_one_size_and_say_what_they_are() -> None:
    splits = folds_of([record(f"q{index}", f"d{index}") for index in range(203)], 5)
    assert [len(one.records["test"]) for one in splits] == [41, 41, 41, 40, 40]
    assert splits[1].made["test"] == "fold 2 of 5, cut by component: 41 of 203 queries"


def test_items_are_dealt_to_whoever_holds_least() -> None:
    # 3 to the first, 1 to the second, which still holds less: 1 and 1 too; then both hold 3, and the first comes first.
    assert deal("abcde", [3, 1, 1, 1, 2], 2) == [["a", "e"], ["b", "c", "d"]]


def test_a_group_larger_than_a_fold_is_never_tested_and_named() -> None:
    records = [record(f"q{index}", "the same answer") for index in range(30)]
    records += [record(f"p{index}", f"d{index}") for index in range(20)]
    for splits in folds_of(records, 2):
        assert "the same answer" in texts(splits, "train") and "the same answer" not in texts(splits, "test")
        assert "1 groups of pairs, 60% of all, are too large for a fold and stay in train" in splits.notes[0]
    by_query = folds_of(records, 2, split_by="query")
    assert sum(len(splits.records["test"]) for splits in by_query) == 50


def test_fewer_groups_than_folds_are_refused_with_a_way_out() -> None:
    records = [record(f"q{index}", f"d{index}") for index in range(3)]
    with pytest.raises(DataError, match="5 folds cannot be cut from 3 groups of pairs that share texts") as refused:
        folds_of(records, 5)
    assert "--folds 2 to 3" in str(refused.value) and "--split-by query" in str(refused.value)
    shared = [record(f"q{index}", f"d{index % 3}") for index in range(30)]
    with pytest.raises(DataError, match="from 0 groups of pairs that share texts, and 3 larger than a fold"):
        folds_of(shared, 5)


def test_a_given_test_split_is_no_matter_for_folds() -> None:
    records = [record(f"q{index}", f"d{index}", "test" if index < 20 else "train") for index in range(60)]
    source = Source(records, "retrieval", frozenset({"train", "test"}), PrepareConfig())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="brings a test split"):
        split_sources([source], 0, fold=Fold(1, 5))


def test_too_few_rows_for_a_test_split_are_offered_folds() -> None:
    records = [record(f"q{index}", f"d{index}") for index in range(150)]
    source = Source(records, "retrieval", frozenset(), PrepareConfig())
    with pytest.raises(DataError, match=r"100 are needed.*") as refused:
        split_sources([source], 0)
    assert "adapt --folds 5" in str(refused.value)
