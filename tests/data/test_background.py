"""Out-of-domain texts, in every form, and which of them no training may see."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.configs import DomainConfig
from acclimate.data.background import texts_of_source
from acclimate.data.lexicon import domain_hashes
from acclimate.errors import DataError
from acclimate.files import hash_file, write_jsonl


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.txt", "a book\nthe car\na  book\n"),
        ("b.jsonl", '{"text": "a book"}\n{"text": "the car"}\n'),
        ("b.csv", "id,text\n1,a book\n2,the car\n"),
        ("b.tsv", "query\tresponse\na book\tthe car\n"),
    ],
)
def test_background_in_every_form(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert texts_of_source(str(path)) == ["a book", "the car"]
    found = domain_hashes(DomainConfig(background=str(path)), (str(tmp_path),))
    assert found == {f"background {path}": hash_file(path)}


def test_background_without_a_text(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text(" \n", encoding="utf-8")
    with pytest.raises(DataError, match="no text"):
        texts_of_source(str(path))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        texts_of_source(str(tmp_path / "absent.txt"))


def test_queries_of_a_proof_stay_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": f"d{n}", "text": f"document {n}"} for n in range(3)])
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": f"q{n}", "text": f"query {n}"} for n in range(3)])
    (tmp_path / "qrels").mkdir()
    for number, split in enumerate(("train", "dev", "test")):
        judged = f"query-id\tcorpus-id\tscore\nq{number}\td{number}\t1\n"
        (tmp_path / "qrels" / f"{split}.tsv").write_text(judged, encoding="utf-8")
    documents = [f"document {n}" for n in range(3)]
    assert texts_of_source(str(tmp_path)) == [*documents, "query 0", "query 1", "query 2"]
    assert texts_of_source(str(tmp_path), held_out=False) == [*documents, "query 0"]


def test_labelled_pairs_of_a_proof_stay_out(tmp_path: Path) -> None:
    for split, first in (("train", "one"), ("test", "two")):
        rows = f"sentence1\tsentence2\tlabel\n{first} sentence\t{first} other\t1\n"
        (tmp_path / f"{split}.tsv").write_text(rows, encoding="utf-8")
    assert texts_of_source(str(tmp_path), held_out=False) == ["one sentence", "one other"]
    assert len(texts_of_source(str(tmp_path))) == 4
