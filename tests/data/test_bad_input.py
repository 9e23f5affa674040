"""What is broken is told by file and row; a broken row costs that row, unless there is no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acclimate.errors import DataError
from acclimate.types import Example
from tests.data.conftest import Build, build_source, jsonl, write_beir

GOOD = jsonl({"query": "who is it", "response": "it is me"})


def test_missing_and_empty(tmp_path: Path, build: Build) -> None:
    with pytest.raises(DataError, match=r"absent.jsonl: no such file"):
        build_source(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match=r"x.jsonl is empty"):
        build("x.jsonl", "")
    with pytest.raises(DataError, match=r"x.csv: no row"):
        build("x.csv", "query,answer\n")
    with pytest.raises(DataError, match=r"a folder of no known form; it holds x.csv, x.jsonl"):
        build_source(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"query": "broken', "not JSON"),
        ('["a", "list"]', "a JSON list, not an object"),
        (json.dumps({"query": "y" * 10 * 2**20, "response": "z"}), "longer than 8 MiB in one line"),
        (json.dumps({"query": "y" * 2**21, "response": "it is me"}), "text too long"),
        (json.dumps({"query": "", "response": "it is me"}), "empty (query)"),
        (json.dumps({"query": "  ", "response": "it is me"}), "empty (query)"),
        (json.dumps({"query": "who", "response": None}), "empty (response)"),
        (json.dumps({"query": "x", "response": "it is me"}), "too short (query: 'x')"),
        (json.dumps({"query": "\ud800 who", "response": "it is me"}), ""),
        (json.dumps({"query": {"text": "who"}, "response": "it is me"}), "not text (query holds a dict)"),
        (json.dumps({"text": "who"}), "unknown columns (columns found: 'text')"),
    ],
)
def test_broken_line_costs_that_line(build: Build, line: str, reason: str) -> None:
    dataset, rejected = build("x.jsonl", GOOD + line + "\n")
    assert dataset.examples == [Example("who is it", "it is me")]
    assert [(row.source, row.row) for row in rejected] == [("x.jsonl", 2)]
    assert rejected[0].reason.startswith(reason)
    with pytest.raises(DataError, match=r"x.jsonl"):
        build("x.jsonl", line + "\n")


def test_every_line_broken_names_the_first(build: Build) -> None:
    with pytest.raises(DataError, match=r"x.jsonl: no usable row; row 2: not JSON .*2 rows rejected"):
        build("x.jsonl", "\n{broken\n{worse\n")


def test_rejected_rows_are_told_where_the_rest_is_too_few(build: Build) -> None:
    """All that a user sees of 300 rows may be that 90 are too few."""
    good = jsonl(*({"query": f"question {n}", "response": f"answer {n}"} for n in range(90)))
    bad = jsonl(*({"query": f"question {n}", "response": ""} for n in range(200)), {"query": "question 1"})
    with pytest.raises(DataError, match=r"only 45 of 90 queries .* 100 are needed") as error:
        build("x.jsonl", good + bad, test_fraction=0.1)
    message = str(error.value)
    assert "over fewer, a mean is uncertain by more than 0.08" in message and "it takes 200 or more" in message
    assert (
        "201 rows rejected: x.jsonl row 91: empty (response), and 199 more; x.jsonl row 291: unknown columns" in message
    )


def test_every_reason_is_told_where_no_row_can_be_used(build: Build) -> None:
    rows = jsonl({"query": "who", "response": ""}, {"query": "", "response": "me"}, {"query": "x", "response": "y"})
    with pytest.raises(
        DataError, match=r"3 rows rejected: x.jsonl row 1: empty \(response\), and 1 more; x.jsonl row 3: too"
    ):
        build("x.jsonl", rows)


def test_not_utf8(build: Build) -> None:
    dataset, rejected = build("x.jsonl", GOOD.encode() + b'{"query": "\xff"}\n')
    assert len(dataset.examples) == 1 and rejected[0].reason == "not UTF-8 (byte 11)"


def test_broken_csv_and_tsv_rows(build: Build) -> None:
    dataset, rejected = build(
        "x.csv", 'query,answer\nwho is it,it is me\nonly one\n"open "quote,here\nwhat,"a\nthing"\nlast one,its row\n'
    )
    assert [example.anchor for example in dataset.examples] == ["who is it", "what", "last one"]
    assert [(row.row, row.reason.partition(" (")[0]) for row in rejected] == [
        (3, "wrong number of columns"),
        (4, "not CSV"),
    ]
    dataset, rejected = build("x.tsv", "query\tanswer\nwho is it\tit is me\ta third\nwhat is it\ta thing\n")
    assert rejected[0].row == 2 and dataset.examples == [Example("what is it", "a thing")]


def test_broken_parquet_and_array(build: Build) -> None:
    with pytest.raises(DataError, match=r"x.parquet: not readable as parquet"):
        build("x.parquet", b"PAR1 and nothing")
    with pytest.raises(DataError, match=r"x.json: not a JSON array"):
        build("x.json", '[{"query": "who"')
    rows = [{"query": "who is it", "answer": "it is me"}, 3, {"query": "\ud800 who", "answer": "it is me"}]
    dataset, rejected = build("x.json", json.dumps(rows))
    assert len(dataset.examples) == 1
    assert [row.reason for row in rejected] == ["a JSON int, not an object", "not valid Unicode (a lone surrogate)"]


@pytest.mark.parametrize("label", ["nan", "inf", "", "maybe"])
def test_labels_that_are_no_number(build: Build, label: str) -> None:
    lines = f"sentence1,sentence2,label\na cat,a dog,0\nthe sun,the star,{label}\nan egg,the egg,1\n"
    dataset, rejected = build("x.csv", lines)
    assert len(dataset.pairs["train"]) == 2 and [row.row for row in rejected] == [3]
    with pytest.raises(DataError, match=r"x.csv: no usable row; row 2: .*label"):
        build("x.csv", f"sentence1,sentence2,label\na cat,a dog,{label}\n")


def test_nan_scores(build: Build) -> None:
    row = {"query": "what is it", "pos": ["a thing"], "neg": [], "pos_scores": [float("nan")]}
    _, rejected = build("x.jsonl", jsonl({"query": "who is it", "pos": ["it is me"], "neg": []}, row))
    assert [(item.row, item.reason) for item in rejected] == [(2, "not a finite number (pos_scores: nan)")]


def test_label_outside_the_range_is_an_error(build: Build) -> None:
    text = "sentence1,sentence2,label\na cat,a dog,0\nthe sun,the star,7\n"
    with pytest.raises(DataError, match=r"x.csv row 3: label 7 is outside the range. Possible: 0 to 5"):
        build("x.csv", text, label_min=0.0, label_max=5.0)
    with pytest.raises(DataError, match=r"x.csv row 2: label 0 is outside the range. Possible: 1 to any"):
        build("x.csv", text, label_min=1.0)
    dataset, _ = build("x.csv", text, label_max=14.0)
    assert [pair.score for pair in dataset.pairs["train"]] == [0.0, 0.5]


def test_one_label_only(build: Build) -> None:
    text = "sentence1,sentence2,label\na cat,a dog,1\nthe sun,the star,1\n"
    with pytest.raises(DataError, match=r"every label is 1"):
        build("x.csv", text)
    dataset, _ = build("x.csv", text, label_min=0.0, label_max=2.0)
    assert [pair.score for pair in dataset.pairs["train"]] == [0.5, 0.5]


def test_two_kinds_in_one_file(build: Build) -> None:
    labelled = jsonl({"query": "what is it", "response": "a thing", "label": 1})
    with pytest.raises(DataError, match=r"x.jsonl row 2: .* pairs data, rows before it are retrieval data"):
        build("x.jsonl", GOOD + labelled)


def test_beir_errors(tmp_path: Path) -> None:
    corpus, queries = {"d1": "it is me"}, {"q1": "who is it"}
    folder = write_beir(tmp_path / "a", corpus, queries, train=[("q1", "d1", 1), ("q1", "d9", 1)])
    dataset, rejected = build_source(folder)
    assert dataset.qrels == {"train": {"q1": {"d1": 1}}}
    assert [(row.source, row.row, row.reason) for row in rejected] == [
        ("qrels/train.tsv", 3, "unknown document id ('d9')")
    ]
    assert "1 judgements name a document that is not there: d9" in dataset.info["warnings"]
    folder = write_beir(tmp_path / "b", corpus, queries, train=[("q7", "d1", 1)])
    with pytest.raises(DataError, match=r"train.tsv: no usable judgement among 1; row 2: unknown query id \('q7'\)"):
        build_source(folder)
    (folder / "qrels" / "train.tsv").write_text("q\td\tscore\nq1\td1\t1\n")
    with pytest.raises(DataError, match=r"no column query-id; columns found: 'q', 'd', 'score'"):
        build_source(folder)
    (folder / "qrels" / "train.tsv").unlink()
    with pytest.raises(DataError, match=r"qrels: no judgements"):
        build_source(folder)
    folder = write_beir(tmp_path / "c", corpus, queries, train=[("q1", "d1", 1)])
    (folder / "corpus.jsonl").write_text(jsonl({"_id": "d1", "text": "one"}, {"_id": "d1", "text": "other"}))
    dataset, rejected = build_source(folder)
    assert dataset.corpus == {"d1": "one"} and rejected[0].reason == "its id has another text already ('d1')"
    assert "1 second text of an id not used: d1" in dataset.info["warnings"]
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match=r"corpus.jsonl: no such file"):
        build_source(folder)


def test_beir_rows_at_fault_are_rejected(tmp_path: Path) -> None:
    corpus, queries = {"d1": "it is me", "d2": "", "d3": "you"}, {"q1": "who is it"}
    folder = write_beir(tmp_path / "a", corpus, queries, train=[("q1", "d1", 1), ("q1", "d2", 1)])
    with (folder / "qrels" / "train.tsv").open("a") as stream:
        stream.write("q1\td3\tnan\n")
    dataset, rejected = build_source(folder)
    assert dataset.qrels == {"train": {"q1": {"d1": 1}}} and set(dataset.corpus) == {"d1", "d3"}
    assert [(row.source, row.row, row.reason) for row in rejected] == [
        ("corpus.jsonl", 2, "empty (text)"),
        ("qrels/train.tsv", 3, "its query or document has no text"),
        ("qrels/train.tsv", 4, "not a finite number (score: nan)"),
    ]
