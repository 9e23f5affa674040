"""Feedback in files: JSONL goes both ways, qrels are read and written, what is wrong is counted by its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acclimate.errors import UsageError
from acclimate.feedback.exchange import export_file, import_file
from acclimate.feedback.records import Impression, Mark
from acclimate.feedback.store import FeedbackStore


def new(folder: Path, name: str) -> FeedbackStore:
    return FeedbackStore(folder / name, create=True)


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    made = new(tmp_path, "a.sqlite")
    made.add_impressions([Impression("i1", 1.0, "wheat", ("a", "b"), "sha", "space", 3, 1)])
    made.add_marks([Mark("a", "click", impression_id="i1", user="ann", at=5.0), Mark("b", "relevant", "rye", at=6.0)])
    return made


def test_jsonl_goes_out_and_in_again(store: FeedbackStore, tmp_path: Path) -> None:
    assert export_file(store, tmp_path / "all.jsonl", {}) == {"impressions": 1, "marks": 2}
    other = new(tmp_path, "b.sqlite")
    report, rejected = import_file(other, tmp_path / "all.jsonl", queries={}, present=None)
    assert report == {"impressions": 1, "marks": 2, "repeated": 0, "rejected": {}} and rejected == []
    assert list(other.impressions()) == list(store.impressions())
    assert list(other.marks()) == list(store.marks())
    again, _ = import_file(other, tmp_path / "all.jsonl", queries={}, present=None)
    assert (again["impressions"], again["marks"], again["repeated"]) == (0, 0, 2)


def test_rows_that_cannot_be_are_counted_by_their_reason(tmp_path: Path) -> None:
    rows: list[object] = [
        {"query": "wheat", "id": "a", "mark": "relevant"},
        {"query": "wheat", "id": "gone", "mark": "relevant"},
        {"id": "a", "mark": "click", "impression_id": "nobody"},
        {"query": 3, "id": "a", "mark": "relevant"},
        {"query": "wheat", "mark": "relevant"},
        {"impression_id": "i", "query": "q", "shown": [1], "at": 0},
        [1],
    ]
    path = tmp_path / "marks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    report, rejected = import_file(new(tmp_path, "b.sqlite"), path, queries={}, present=lambda ids: {"a"} & set(ids))
    assert report["marks"] == 1
    assert sum(report["rejected"].values()) == len(rejected) == 7
    assert report["rejected"]["no such document"] == report["rejected"]["unknown impression"] == 1
    assert {row.row for row in rejected} == {2, 3, 4, 5, 6, 7, 8}


def test_judgements_as_qrels_with_the_queries_beside_them(store: FeedbackStore, tmp_path: Path) -> None:
    store.add_marks([Mark("c", "not_relevant", "wheat", user="bob")])
    out = tmp_path / "judged.qrels"
    assert export_file(store, out, {"q7": "Wheat"}) == {"judgements": 2, "queries": 2}
    lines = [line.split() for line in out.read_text().splitlines()]
    assert [(document, grade) for _, _, document, grade in lines] == [("b", "1"), ("c", "0")]
    assert lines[1][0] == "q7" and lines[0][0].startswith("feedback-")
    texts = [json.loads(line) for line in (tmp_path / "judged.qrels.queries.jsonl").read_text().splitlines()]
    queries = {row["_id"]: row["text"] for row in texts}
    other = new(tmp_path, "b.sqlite")
    report, _ = import_file(other, out, queries=queries, present=None, user="expert")
    assert report["marks"] == 2
    found = {(mark.query, mark.document, mark.mark, mark.user) for mark in other.marks()}
    assert found == {("rye", "b", "relevant", "expert"), ("wheat", "c", "not_relevant", "expert")}


def test_qrels_of_unknown_queries_and_files_of_no_known_form(tmp_path: Path) -> None:
    path = tmp_path / "some.qrels"
    path.write_text("q1 0 a 1\nnobody 0 a 1\n")
    report, rejected = import_file(new(tmp_path, "b.sqlite"), path, queries={"q1": "wheat"}, present=None)
    assert report["marks"] == 1 and report["rejected"] == {"unknown query id": 1} and rejected[0].row == 2
    with pytest.raises(UsageError, match="unknown form"):
        export_file(new(tmp_path, "c.sqlite"), tmp_path / "x.parquet", {})
