"""From source to dataset: cleaning, ids, further documents, sampling, facts, and the folder they are written to."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.configs import PrepareConfig
from acclimate.data.build import build_dataset
from acclimate.data.clean import clean
from acclimate.data.dataset import Dataset, is_dataset, load_dataset, write_dataset
from acclimate.data.facts import evenly, languages, percentiles
from acclimate.data.records import Record, folded, normalise
from acclimate.errors import DataError, StorageError
from acclimate.types import Example, LabelledPair
from tests.conftest import shared_data
from tests.data.conftest import Build, build_source, jsonl, write_beir


@settings(deadline=None, max_examples=30)
@given(st.text())
def test_normalise(text: str) -> None:
    clean_text = normalise(text)
    assert normalise(clean_text) == clean_text and unicodedata.is_normalized("NFC", clean_text)
    assert "\r" not in clean_text and clean_text == clean_text.strip()
    assert clean_text.split() == unicodedata.normalize("NFC", text).split()


def test_texts_are_kept_as_they_are() -> None:
    assert normalise(" def f(x):\r\n    return x \n") == "def f(x):\n    return x"
    assert folded("def f(x):\n    return x") == "def f(x): return x"


def test_equal_texts_are_equal_after_normalising(build: Build) -> None:
    rows = [
        {"query": "caf\u00e9  au\nlait", "response": "it is"},
        {"query": " cafe\u0301 au lait", "response": "it\u3000is"},
    ]
    dataset, rejected = build("x.jsonl", jsonl(*rows))
    assert dataset.queries == {"q0": "café  au\nlait"} and dataset.corpus == {"d0": "it is"}
    assert len(dataset.examples) == 1
    assert rejected[0].reason == "duplicate (of x.jsonl row 1)"


def test_contradictions_lose_both_rows() -> None:
    rows = [("a", "b", 1.0), ("a", "c", 1.0), ("a", "b", 0.0), ("a", "c", 1.0)]
    records = [Record("x", row, one, two, label=label) for row, (one, two, label) in enumerate(rows, 1)]
    kept, rejected = clean(records, "pairs")
    assert [record.row for record in kept] == [2]
    assert [(row.row, row.reason) for row in rejected] == [
        (1, "contradiction (of x row 3)"),
        (3, "contradiction (of x row 1)"),
        (4, "duplicate (of x row 2)"),
    ]


def test_a_positive_elsewhere_is_no_negative() -> None:
    records = [Record("x", 1, "who", "me", ("us", "he"), (0.9, 0.8, 0.1)), Record("x", 2, "who", "us")]
    kept, _ = clean(records, "retrieval")
    assert kept[0].negatives == ("he",) and kept[0].scores == (0.9, 0.1)


def test_several_positives_and_shared_ids(build: Build) -> None:
    dataset, _ = build(
        "x.jsonl", jsonl({"query": "who", "pos": ["me", "us"], "neg": []}, {"query": "me", "pos": ["us"], "neg": []})
    )
    assert dataset.corpus == {"d0": "me", "d1": "us"} and dataset.queries == {"q0": "who", "q1": "me"}
    assert dataset.qrels == {"train": {"q0": {"d0": 1, "d1": 1}, "q1": {"d1": 1}}}


def test_further_documents(build: Build, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text(
        jsonl(
            {"_id": "d0", "text": "another"}, {"id": 7, "title": "It is", "text": "me"}, {"text": "third"}, {"text": ""}
        )
    )
    dataset, rejected = build("x.jsonl", jsonl({"query": "who is it", "response": "it is you"}), corpus=str(more))
    assert dataset.corpus == {"d0": "another", "7": "It is me", "d1": "it is you", "d2": "third"}
    assert dataset.qrels == {"train": {"q0": {"d1": 1}}}
    assert [(row.source, row.row, row.reason) for row in rejected] == [("more.jsonl", 4, "empty (text)")]
    folder = write_beir(tmp_path / "beir", {"d0": "it is you"}, {"q0": "who"}, train=[("q0", "d0", 1)])
    dataset, _ = build_source(folder, corpus=str(more))  # parts of one document often share its id
    assert dataset.corpus == {"d0": "it is you", "7": "It is me", "d1": "another", "d2": "third"}
    assert "1 document of more.jsonl got a new id: another text has theirs" in dataset.info["warnings"]
    more.write_text(jsonl({"body": "x"}))
    with pytest.raises(DataError, match=r"more.jsonl: no usable row; row 1: no text \(columns found: body\)"):
        build_source(folder, corpus=str(more))


def test_beir_keeps_ids_titles_and_grades(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "a", {"x9": "it is me", "x8": "you", "x7": "w"}, {"A": "who is it", "B": "unused"},
                        train=[("A", "x9", 2), ("A", "x8", 0), ("A", "x7", 1)])  # fmt: skip
    (folder / "corpus.jsonl").open("a").write(jsonl({"_id": "x6", "title": "A title", "text": "and text"}))
    dataset, rejected = build_source(folder)
    assert dataset.corpus == {"x9": "it is me", "x8": "you", "x7": "w", "x6": "A title and text"}
    assert dataset.queries == {"A": "who is it"} and dataset.qrels == {"train": {"A": {"x9": 2, "x8": 0}}}
    # judged not relevant: a hard negative; too short: not trained on, but still a document
    assert dataset.examples == [Example("who is it", "it is me", ("you",))]
    assert [row.reason for row in rejected] == ["too short (document: 'w')"]


def many_pairs(count: int) -> str:
    return "sentence1,sentence2,label\n" + "".join(f"left {n},right {n},{n % 3}\n" for n in range(count))


def test_per_label_and_limit(build: Build) -> None:
    dataset, _ = build("x.csv", many_pairs(300), per_label=20)
    assert Counter(pair.label for pair in dataset.pairs["train"]) == {0.0: 20, 1.0: 20, 2.0: 20}
    again, _ = build("x.csv", many_pairs(300), per_label=20)
    other, _ = build("x.csv", many_pairs(300), per_label=20, seed=7)
    assert again.pairs == dataset.pairs != other.pairs
    dataset, _ = build("x.csv", many_pairs(300), limit=50, test_fraction=0.1)
    assert {split: len(pairs) for split, pairs in dataset.pairs.items()} == {"train": 50, "test": 50}
    rows = jsonl(*({"query": f"query {n // 2}", "response": f"answer {n}"} for n in range(40)))
    dataset, _ = build("y.jsonl", rows, limit=5)
    assert len(dataset.queries) == 5 and len(dataset.examples) == 10 and len(dataset.corpus) == 40


def test_facts() -> None:
    assert percentiles(range(1, 101)) == {"p50": 50, "p90": 90, "p99": 99, "max": 100} and percentiles([]) == {}
    assert languages(["农业abc", "か"]) == {"Latin": 0.5, "Han": 0.3333, "Kana": 0.1667}
    assert evenly(["a"] * 3) == ["a"] * 3 and evenly([str(n) for n in range(10)], 2) == ["0", "5"]


def test_warnings(build: Build) -> None:
    row = {"query": "who is it", "response": "it is me", "rejected_response": ["it is you"]}
    dataset, _ = build("x.jsonl", jsonl(row, {"query": "what", "response": "thing"}, {"query": "x", "response": "y"}))
    text = " | ".join(dataset.info["warnings"])
    assert "2 training pairs, fewer than 10,000" in text and "0 test queries, fewer than 200" in text
    assert "1 row rejected, 33% of all" in text
    assert dataset.info["counts"]["rejected"] == {"too short": 1} and dataset.info["counts"]["with_negatives"] == 1
    dataset, _ = build("x.jsonl", jsonl({"query": "who is it", "response": "it is me"}))
    text = " | ".join(dataset.info["warnings"])
    assert "1 training pair, fewer than 10,000" in text
    assert "hard negatives" not in text  # mining follows; a training without it tells of it


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).map(normalise).filter(bool)
labels = st.floats(-1e6, 1e6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(words, words, labels), min_size=1), st.lists(st.tuples(words, words, st.lists(words))))
def test_write_then_load_is_identity(
    labelled: list[tuple[str, str, float]], rows: list[tuple[str, str, list[str]]]
) -> None:
    low, high = -1e6, 1e6
    pairs = [LabelledPair(one, two, label, (label - low) / (high - low)) for one, two, label in labelled]
    info = {"label_range": [low, high], "warnings": ["文"]}
    examples = [Example(pair.sentence1, pair.sentence2, label=pair.score) for pair in pairs]
    first = Dataset("pairs", pairs={"train": pairs}, examples=examples, info={"kind": "pairs", **info})
    second = Dataset("retrieval", info={"kind": "retrieval"})
    for number, (query, document, negatives) in enumerate(rows):
        second.queries[f"q{number}"], second.corpus[f"d{number}"] = query, document
        second.qrels.setdefault("test", {})[f"q{number}"] = {f"d{number}": 1}
        scores = (0.5, *(0.25 for _ in negatives)) if number % 2 else None
        second.examples.append(Example(query, document, tuple(negatives), scores=scores))
    for dataset in (first, second):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_dataset(folder, dataset, [])
            assert is_dataset(folder) and load_dataset(folder) == dataset


def test_a_folder_of_a_release_that_quoted_nothing(tmp_path: Path, build: Build) -> None:
    """There, a quote at the beginning of a field was a letter."""
    dataset, rejected = build("x.csv", 'sentence1,sentence2,label\n"""A"" is",b c,0\nd e,f \\n g,2\n')
    (tmp_path / "x").mkdir()
    write_dataset(tmp_path / "x", dataset, rejected)
    info = json.loads((tmp_path / "x" / "dataset.json").read_text())
    del info["quoting"]
    (tmp_path / "x" / "dataset.json").write_text(json.dumps(info))
    (tmp_path / "x" / "pairs" / "train.tsv").write_text(
        'sentence1\tsentence2\tlabel\n"A" is\tb c\t0\nd e\tf \\n g\t2\n'
    )
    assert load_dataset(tmp_path / "x").pairs == dataset.pairs


def test_damaged_dataset(tmp_path: Path, build: Build) -> None:
    dataset, rejected = build("x.jsonl", jsonl({"query": "who is it", "response": "it is me"}))
    folder = tmp_path / "dataset"
    folder.mkdir()
    write_dataset(folder, dataset, rejected)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\n")
    with pytest.raises(StorageError, match="is damaged"):
        load_dataset(folder)
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(StorageError, match=r"corpus.jsonl is missing"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("agrieval_zh", {"train": 1402, "dev": 74, "test": 641}), ("pawsx_zh", {"train": 1869, "dev": 98, "test": 2000})],
)
def test_shared_data_and_reading_it_again(tmp_path: Path, name: str, sizes: dict[str, int]) -> None:
    dataset, rejected = build_dataset(str(shared_data("data", name)), PrepareConfig(), seed=42)
    assert {split: len(dataset.qrels.get(split, ())) or len(dataset.pairs[split]) for split in sizes} == sizes
    assert next(iter(dataset.info["languages"])) == "Han"
    write_dataset(tmp_path, dataset, rejected)
    again, _ = build_dataset(str(tmp_path), PrepareConfig(), seed=3)
    assert (again.qrels, again.examples, again.pairs) == (dataset.qrels, dataset.examples, dataset.pairs)
    assert (again.corpus, again.queries) == (dataset.corpus, dataset.queries)
