"""Splits by hand and by law: nothing leaks, and nothing but the seed and the texts decides."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.configs import PrepareConfig
from acclimate.core.same_text import connected
from acclimate.data.records import Record
from acclimate.data.split import MIN_TEST
from acclimate.data.splits import Splits
from acclimate.errors import DataError
from acclimate.types import SPLITS, Split
from tests.data.conftest import Build, build_source, jsonl, write_beir
from tests.data.splitting import split_records


def record(anchor: str, positive: str, split: Split = "train", **rest: object) -> Record:
    return replace(Record("x", 1, anchor, positive, split=split), **rest)  # type: ignore[arg-type]


def own_split(records: list[Record], seed: int = 0, **settings: object) -> Splits:
    return split_records(records, "retrieval", frozenset(), PrepareConfig(**settings), seed)  # type: ignore[arg-type]


def texts(splits: Splits, split: Split) -> set[str]:
    return {text for item in splits.records[split] for text in (item.anchor, item.positive)}


def few_links(links: list[tuple[int, int]]) -> list[Record]:
    """300 pairs of their own, and links of some queries to some documents."""
    single = [record(f"q{index}", f"d{index}") for index in range(300)]
    return single + [record(f"q{query}", f"d{document}") for query, document in dict.fromkeys(links)]


links = st.lists(st.tuples(st.integers(0, 320), st.integers(0, 320)), max_size=60)


@settings(deadline=None, max_examples=40)
@given(links, st.integers(0, 3))
def test_own_splits_share_no_text(drawn: list[tuple[int, int]], seed: int) -> None:
    records = few_links(drawn)
    splits = own_split(records, seed)
    train, dev, test = (texts(splits, split) for split in SPLITS)
    assert not train & test and not train & dev and not dev & test
    assert sum(len(splits.records[split]) for split in SPLITS) == len(records)
    assert len({item.anchor for item in splits.records["test"]}) >= MIN_TEST


@settings(deadline=None, max_examples=40)
@given(links, st.integers(0, 3))
def test_row_order_does_not_decide(drawn: list[tuple[int, int]], seed: int) -> None:
    records = few_links(drawn)
    shuffled = random.Random(seed).sample(records, len(records))
    for one, other in zip(*(own_split(rows, 7).records.items() for rows in (records, shuffled)), strict=True):
        assert {(item.anchor, item.positive) for item in one[1]} == {(item.anchor, item.positive) for item in other[1]}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=25))
def test_components_equal_a_plain_search(edges: list[tuple[int, int]]) -> None:
    found = connected([(f"t{one}", f"t{two}") for one, two in edges])
    for start, edge in enumerate(edges):
        reached, before = set(edge), set()
        while reached != before:
            before = set(reached)
            reached |= {text for other in edges if reached & set(other) for text in other}
        assert [found[start] == number for number in found] == [bool(reached & set(other)) for other in edges]


def test_seed_decides() -> None:
    records = few_links([])
    assert texts(own_split(records, 1), "test") != texts(own_split(records, 2), "test")


def test_sizes() -> None:
    splits = own_split([record(f"q{index}", f"d{index}") for index in range(3000)])
    # 10 % of 3000 are test; 5 % of the other 2700 are dev
    assert [len(splits.records[split]) for split in SPLITS] == [2565, 135, 300]
    assert splits.made["dev"] == "cut from train by component: 135 of 2700 queries"
    large = own_split([record(f"q{index}", f"d{index}") for index in range(20_000)])
    assert len(large.records["dev"]) == 500


def test_large_component_stays_in_train() -> None:
    hub = [record(f"hub {index}", "the hub") for index in range(40)]  # 40 of 640 pairs: more than 5 %
    for seed in range(5):
        splits = own_split([*hub, *(record(f"q{index}", f"d{index}") for index in range(600))], seed)
        assert "the hub" in texts(splits, "train")


def test_too_few_test_queries_offers_split_by_query() -> None:
    hub = [record(f"q{index}", "the hub") for index in range(500)]
    with pytest.raises(
        DataError, match=r"only 0 of 500 queries .*\(the largest group .* holds 100% of them\).*--split-by query"
    ):
        own_split(hub)
    splits = own_split(hub, split_by="query")
    assert len(splits.records["test"]) == MIN_TEST
    assert not {item.anchor for item in splits.records["test"]} & {item.anchor for item in splits.records["train"]}
    assert splits.shared_documents == 1
    with pytest.raises(DataError, match="only 75 of 150 queries"):
        own_split([record(f"q{index}", f"d{index}") for index in range(150)])


def test_split_by_column(build: Build) -> None:
    rows = [
        {"query": f"q {n}", "response": f"d {n}", "author": f"a{n % 10}", "part": ["train", "test"][n % 2]}
        for n in range(60)
    ]
    dataset, _ = build("x.jsonl", jsonl(*rows), split_by="author", test_fraction=0.1, dev_fraction=0.05)
    held = {int(dataset.queries[query].split()[1]) % 10 for query in dataset.qrels["test"]}
    kept = {int(dataset.queries[query].split()[1]) % 10 for query in dataset.qrels["train"]}
    assert len(held) == 5 and not held & kept
    dataset, _ = build("x.jsonl", jsonl(*rows), split_by="part", test_fraction=0.1)
    assert len(dataset.qrels["test"]) == 30 and dataset.info["splits"]["test"] == "given"
    with pytest.raises(DataError, match="no column 'writer', which --split-by names"):
        build("x.jsonl", jsonl(*rows), split_by="writer", test_fraction=0.1)


def given_splits(**settings: object) -> Splits:
    records = [
        record("who", "me", negatives=("asked in test", "fine", "only in test")),
        record("asked in test", "you"),
        record("asked in dev", "you"),
        record("what", "asked in test"),
        record("when", "shared"),
        record("asked in dev", "them", "dev"),
        record("asked in test", "them", "dev"),
        record("asked in test", "shared", "test"),
        record("which", "only in test", "test"),
    ]
    config = PrepareConfig(dev_fraction=0.0, **settings)  # type: ignore[arg-type]
    return split_records(records, "retrieval", frozenset(SPLITS), config, 0)


def test_given_splits_are_respected() -> None:
    splits = given_splits()
    assert [item.anchor for item in splits.records["test"]] == ["asked in test", "which"]
    assert [item.anchor for item in splits.records["dev"]] == ["asked in dev"]
    assert [item.anchor for item in splits.records["train"]] == ["who", "when"]
    assert [row.reason for row in splits.rejected] == ["leak (its query or pair is in test)"] + 3 * [
        "leak (its query or pair is in dev or test)"
    ]
    assert splits.records["train"][0].negatives == ("fine",) and splits.negatives_removed == 2
    assert splits.shared_documents == 1


def test_strict_documents() -> None:
    splits = given_splits(strict_documents=True)
    assert [item.anchor for item in splits.records["train"]] == ["who"]
    assert splits.rejected[-1].reason == "shared document (strict_documents)"


def test_labelled_pairs_are_held_out_as_pairs() -> None:
    records = [
        record("a", "b", label=1.0),
        record("a", "c", label=0.0),
        record("b", "a", "test", label=1.0),
    ]
    splits = split_records(records, "pairs", frozenset({"train", "test"}), PrepareConfig(dev_fraction=0.0), 0)
    assert [item.positive for item in splits.records["train"]] == ["c"] and splits.shared_documents == 1


def test_dev_is_cut_as_the_test_was(tmp_path: Path) -> None:
    documents = {f"d{index}": f"document {index}" for index in range(10)}
    queries = {f"q{index}": f"query {index}" for index in range(220)}
    rows = [(f"q{index}", f"d{index % 10}", 1) for index in range(220)]
    folder = write_beir(tmp_path / "shared", documents, queries, train=rows[:200], test=rows[200:])
    dataset, _ = build_source(folder, dev_fraction=0.05)
    assert dataset.info["splits"]["dev"].startswith("cut from train by query, because the given test shares")
    assert len(dataset.qrels["dev"]) == 10 and len(dataset.qrels["test"]) == 20
    other = {f"d{index}": f"document {index}" for index in range(220)}
    rows = [(f"q{index}", f"d{index}", 1) for index in range(220)]
    folder = write_beir(tmp_path / "own", other, queries, train=rows[:200], test=rows[200:])
    dataset, _ = build_source(folder, dev_fraction=0.05)
    assert dataset.info["splits"]["dev"] == "cut from train by component: 10 of 200 queries"
