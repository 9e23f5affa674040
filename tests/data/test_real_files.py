"""Files as people have them, in `files/`: four questions with their answers, each time in another form."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from pathlib import Path

import pytest

from acclimate.configs import PrepareConfig
from acclimate.data.dataset import Dataset
from acclimate.data.kinds import kind_of
from acclimate.data.opening import detect_encoding, read_all
from acclimate.data.readers import read_source, source_hashes
from acclimate.data.texts import read_texts
from acclimate.errors import DataError, MissingExtraError
from acclimate.files import MAX_LINE_BYTES
from tests.data.conftest import Build, build_source, jsonl, write_beir

FILES = Path(__file__).parent / "files"
QUESTIONS = ["小麦锈病怎么防治？", "玉米什么时候灌溉？", "番茄叶子为什么发黄？", "苹果树何时修剪？"]
FIRST_ANSWER = "清除病叶，轮作，并在抽穗前喷洒三唑酮。"


def questions(dataset: Dataset) -> list[str]:
    return [dataset.queries[query] for query in dataset.qrels["train"]]


@pytest.mark.parametrize(
    "name",
    [
        "pairs.jsonl.gz",
        "pairs.jsonl.bz2",
        "pairs.jsonl.xz",
        "pairs.jsonl.zst",
        "pairs.zip",
        "pairs.gbk.csv",
        "pairs.utf16.csv",
        "pairs.utf16be.csv",
        "pairs.xlsx",
        "pairs.parquet",
        "pairs.feather",
        "container.json",
        "pandas_columns.json",
        "pandas_split.json",
        "pandas_table.json",
        "column_lists.json",
        "one_after_another.json",
        "pretty.jsonl",
        "tevatron.jsonl",
        "dpr.json",
        "llama_index.json",
        "semicolon.csv",
        "saved",
    ],
)
def test_every_form_gives_the_same_pairs(name: str) -> None:
    dataset, rejected = build_source(FILES / name)
    assert rejected == [] and questions(dataset) == QUESTIONS
    assert dataset.examples[0].anchor == QUESTIONS[0] and dataset.examples[0].positive == FIRST_ANSWER
    assert source_hashes(str(FILES / name), None)


def test_negatives_of_passages() -> None:
    for name in ("tevatron.jsonl", "dpr.json"):
        dataset, _ = build_source(FILES / name)
        assert dataset.examples[0].negatives == (dataset.examples[1].positive,)


def test_llama_index_keeps_its_ids_and_the_documents_that_nobody_asks_for() -> None:
    dataset, _ = build_source(FILES / "llama_index.json")
    assert dataset.qrels["train"]["q-0"] == {"n-0": 1} and dataset.corpus["n-9"] == "没有人问起的文档。"


def test_llama_index_in_one_line_and_with_faults(build: Build) -> None:
    value = json.loads((FILES / "llama_index.json").read_text())
    value["relevant_docs"] |= {"q-0": ["n-0", "gone"], "nobody": ["n-1"], "q-1": "n-1"}
    dataset, rejected = build("x.json", json.dumps(value))
    assert set(dataset.qrels["train"]) == {"q-0", "q-2", "q-3"}
    assert [row.reason for row in rejected] == [
        "unknown document id ('gone')",
        "not a list of ids (str)",
        "unknown query id ('nobody')",
    ]


def test_a_detected_encoding_is_said() -> None:
    for name, encoding in (
        ("pairs.gbk.csv", "GB18030"),
        ("pairs.utf16.csv", "UTF-16"),
        ("pairs.utf16be.csv", "UTF-16"),
    ):
        dataset, _ = build_source(FILES / name)
        assert any(f"read as {encoding}" in warning for warning in dataset.info["warnings"])


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Où est le café ?,Près de la gare où s'arrête le train."),
        ("cp1252", "Wie gieße ich Möhren?,Früh am Morgen, süß und gründlich."),
        ("cp1250", "Jak léčit rez pšenice?,Odstranit nemocné listy, střídat plodiny."),
        ("cp1251", "Как лечить ржавчину пшеницы?,Удалить больные листья."),
        ("koi8_r", "Как лечить ржавчину пшеницы?,Удалить больные листья."),
        ("big5", "玉米什麼時候灌溉?,拔節期與灌漿期。"),
        ("shift_jis", "小麦のさび病はどう防ぐ？,病気の葉を取り除く。"),
        ("euc_jp", "小麦のさび病はどう防ぐ？,病気の葉を取り除く。"),
        ("euc_kr", "밀 녹병은 어떻게 막나요?,병든 잎을 없앤다."),
        ("utf-16-le", "小麦锈病怎么防治？,清除病叶，轮作。"),
        ("utf-8", "小麦锈病怎么防治？,清除病叶，轮作。"),
    ],
)
@pytest.mark.parametrize("count", [1, 50])
def test_encodings(tmp_path: Path, encoding: str, text: str, count: int) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(("query,answer\n" + f"{text}\n" * count).encode(encoding))
    assert detect_encoding(path) == encoding


def test_a_line_broken_in_another_encoding_costs_that_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    lines = ["query,answer", *(f"{question},{FIRST_ANSWER}{n}" for n, question in enumerate(QUESTIONS))]
    raw = [(line + "\n").encode("utf-16-le") for line in lines]
    raw[2] = raw[2][:4] + b"\x00\xd8" + raw[2][6:]  # half of a surrogate pair
    path.write_bytes(b"\xff\xfe" + b"".join(raw))
    dataset, rejected = build_source(path)
    assert len(dataset.examples) == 3 and [row.row for row in rejected] == [3]
    path.write_bytes(
        b"".join((line + "\n").encode("gb18030") for line in lines).replace("？,".encode("gb18030"), b",\xff", 1)
    )
    assert detect_encoding(path) == "gb18030"
    dataset, rejected = build_source(path)
    assert len(dataset.examples) == 3 and [row.row for row in rejected] == [2]


def test_sheets_that_are_not_read_are_said() -> None:
    dataset, _ = build_source(FILES / "pairs.xlsx")
    assert "pairs.xlsx: the sheet 'Fragen' is read; not read: 'notes'" in dataset.info["warnings"]


@pytest.mark.parametrize(("module", "name"), [("openpyxl", "pairs.xlsx"), ("zstandard", "pairs.jsonl.zst")])
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{name} .*acclimate\[files\]"):
        build_source(FILES / name)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("x.pdf", b"%PDF-1.7 ...", "a PDF"),
        ("x.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel file of the format before 2007"),
        ("x.csv", b"<!DOCTYPE html><html><body>Please log in</body></html>", "a web page"),
        ("x.pkl", b"\x80\x04\x95\x10", "a pickle"),
        ("x.tar", b"\0" * 257 + b"ustar\0", "an archive"),
    ],
)
def test_what_is_no_table_is_refused_by_name(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} is {what}.*: no table of texts.*xlsx"):
        build_source(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} is {what}"):
        read_texts(tmp_path / name)


def test_archives_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two.zip: an archive of 2 files \(a.jsonl, b.jsonl\)"):
        build_source(FILES / "two.zip")
    for name in ("pairs.jsonl.gz", "pairs.jsonl.bz2", "pairs.jsonl.xz", "pairs.jsonl.zst", "pairs.zip", "pairs.xlsx"):
        content = (FILES / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=rf"{name}"):
            build_source(tmp_path / name)


def test_two_lists_in_one_object(build: Build) -> None:
    rows = [{"query": question, "answer": FIRST_ANSWER} for question in QUESTIONS]
    with pytest.raises(DataError, match=r"an object with several lists of rows \(a, b\)"):
        build("x.json", json.dumps({"a": rows, "b": rows}, indent=1))
    dataset, _ = build("x.json", json.dumps({"train": rows[:2], "test": rows[2:]}, indent=1))
    assert dataset.info["splits"] == {"train": "given", "test": "given"} and len(dataset.qrels["test"]) == 2


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("test.tsv", "q1\td1\t1\nq2\td2\t1\n"),  # BEIR's, without its header
        ("test.txt", "q1 0 d1 1\nq2 0 d2 1\n"),  # TREC's
        ("qrels.test.tsv", "q1\t0\td1\t1\nq2\t0\td2\t1\n"),  # MS MARCO's
        ("test.trec", "q1\tQ0\td1\t1\n\nq2\tQ0\td2\t1"),
        ("test.csv", "query_id,doc_id,relevance\nq1,d1,1\nq2,d2,1\n"),
        ("test.jsonl", jsonl(*({"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1} for n in (1, 2)))),
    ],
)
def test_qrels_in_every_form(tmp_path: Path, name: str, lines: str) -> None:
    folder = write_beir(tmp_path / "beir", {"d1": "one thing", "d2": "another"}, {"q1": "which", "q2": "what"})
    (folder / "qrels" / name).write_text(lines)
    dataset, rejected = build_source(folder)
    assert dataset.qrels == {"test": {"q1": {"d1": 1}, "q2": {"d2": 1}}} and rejected == []


def test_qrels_beside_the_corpus_are_split_by_us(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", {"d1": "one thing", "d2": "another"}, {"q1": "which", "q2": "what"})
    (folder / "qrels").rmdir()
    (folder / "qrels.txt").write_text("q1 0 d1 1\nq2 0 d2 1\nq2 0 d1 0\n")
    dataset, _ = build_source(folder)
    assert dataset.qrels == {"train": {"q1": {"d1": 1}, "q2": {"d2": 1, "d1": 0}}}
    assert dataset.examples[1].negatives == ("one thing",)


def test_corpora_as_pyserini_and_tevatron_write_them(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", {"d1": "one"}, {"q1": "which"}, test=[("q1", "d1", 1), ("q1", "d2", 1)])
    corpus = jsonl({"docid": "d1", "title": "A title", "text": "one thing"}, {"id": "d2", "contents": "another"})
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.encode()))
    (folder / "corpus.jsonl").unlink()
    (folder / "queries.jsonl").unlink()
    (folder / "queries.tsv").write_text("qid\ttext\nq1\twhich\n")
    dataset, rejected = build_source(folder)
    assert dataset.corpus == {"d1": "A title one thing", "d2": "another"} and rejected == []
    assert set(source_hashes(str(folder), None)) == {"corpus.jsonl.gz", "queries.tsv", "qrels/test.tsv"}


def test_quoted_tsv_is_read_whole(build: Build) -> None:
    """As pandas writes it: no quotes in the header, but around what holds a line end."""
    quoted = [f'q{number}\t"line one {number}\nline two"' for number in range(0, 60, 3)]
    plain = [f'plain {number}\tone "quoted" word {number}' for number in range(1, 41)]
    dataset, rejected = build("x.tsv", "\n".join(["query\tanswer", quoted[0], *plain, *quoted[1:]]) + "\n")
    assert rejected == [] and len(dataset.examples) == 60
    assert dataset.examples[0].positive == "line one 0\nline two"
    assert dataset.examples[1].positive == 'one "quoted" word 1'


def test_stray_quotes_in_raw_tsv_join_no_rows(build: Build) -> None:
    dataset, rejected = build("x.tsv", 'query\tanswer\none\t"The first\ntwo\tends here"\nthree\tplain\nfour\ta\tb\n')
    assert [example.positive for example in dataset.examples] == ['"The first', 'ends here"', "plain"]
    assert [row.row for row in rejected] == [5]


def test_an_open_quote_in_csv_costs_one_line(build: Build) -> None:
    lines = ["query,answer", 'broken,"never closed', *(f"question {n},answer {n}" for n in range(50))]
    dataset, rejected = build("x.csv", "\n".join(lines) + "\n")
    assert len(dataset.examples) == 50 and [row.row for row in rejected] == [2]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.ndjson", '{"text": "one"}\n\n{"text": "two"}\n', ["one", "two"]),
        ("x.json", '[{"text": "one"}, {"text": "two"}]', ["one", "two"]),
        ("x.json", '{"data": [{"contents": "one"},\n {"contents": "two"}]}', ["one", "two"]),
        ("x.csv", 'id,text\n1,"one\nmore"\n2,two\n', ["one\nmore", "two"]),
        ("x.tsv", 'text\nan "odd" one\ntwo\n', ['an "odd" one', "two"]),
        ("x.txt", "one\n\n{two}\n", ["one", "", "{two}"]),
        ("x.txt", "[1] one\n[2] two\n", ["[1] one", "[2] two"]),
        ("x.json", '["one",\n "two"]', ["one", "two"]),
        ("x.jsonl", '{"title": "T", "text": "one"}\n', ["T one"]),
        ("x.md", "# one\n    code\n", ["# one", "code"]),
        ("x.txt", "one\rtwo\r", ["one", "two"]),
        ("x.csv", 'id,text\r1,"one\rmore"\r2,two\r', ["one\nmore", "two"]),
        ("x.txt", "a\0 b\nc", ["a\0 b", "c"]),
    ],
)
def test_texts_of_every_kind(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    (tmp_path / name).write_text(content)
    assert read_texts(tmp_path / name) == expected
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    assert read_texts(tmp_path / f"{name}.gz") == expected


def test_one_line_of_json_may_be_longer_than_a_line(tmp_path: Path) -> None:
    """As pandas' `to_json(orient="records")` writes it."""
    rows = [{"query": f"{question} {n}", "answer": FIRST_ANSWER * 4} for n in range(9000) for question in QUESTIONS]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert (tmp_path / "x.json").stat().st_size > MAX_LINE_BYTES
    assert len(read_source(str(tmp_path / "x.json"), PrepareConfig()).records) == 36000


def test_empty_columns_at_the_right_are_none(build: Build) -> None:
    dataset, rejected = build("x.csv", "query,answer,,\nwho is it,it is me,,\nwhat is it,a thing\nwhy,because,,more\n")
    assert [example.anchor for example in dataset.examples] == ["who is it", "what is it"]
    assert [row.reason for row in rejected] == ["wrong number of columns (4, expected 2)"]


def test_columns_without_a_name_are_not_used(build: Build) -> None:
    dataset, rejected = build("x.csv", ",query,,answer\n0,who is it,a,it is me\n1,what is it,b,a thing\n")
    assert [example.positive for example in dataset.examples] == ["it is me", "a thing"] and rejected == []
    assert "columns not used: (without a name)" in dataset.info["warnings"]


def test_columns_are_not_renamed_by_a_flag_that_is_for_files_without_a_header(build: Build) -> None:
    with pytest.raises(DataError, match=r"x.jsonl says the names of its columns itself, and --columns names a, b"):
        build("x.jsonl", jsonl({"query": "who is it", "answer": "it is me"}), columns=("a", "b"))


def test_further_documents_as_plain_text(build: Build, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("one document\n\nanother, with commas\n")
    dataset, rejected = build("x.csv", "query,answer\nwho is it,it is me\n", corpus=str(tmp_path / "more.txt"))
    assert list(dataset.corpus.values())[1:] == ["one document", "another, with commas"] and rejected == []


def test_a_sheet_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.xlsx.zip", "w") as archive:
        archive.write(FILES / "pairs.xlsx", "x.xlsx")
    assert questions(build_source(tmp_path / "x.xlsx.zip")[0]) == QUESTIONS


def test_texts_without_a_column_of_texts(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("one\ntwo\n")
    with pytest.raises(DataError, match=r"x.csv, row 2: has the fields one. Possible: a field text"):
        read_texts(tmp_path / "x.csv")
    (tmp_path / "x.jsonl").write_text('{"text": "one"}\n{"txt": "two"}\n')
    with pytest.raises(DataError, match=r"x.jsonl, row 2: has the fields txt"):
        read_texts(tmp_path / "x.jsonl")


def test_whole_texts_and_kinds() -> None:
    assert read_all(FILES / "pairs.utf16.csv").startswith("query\tanswer\n")
    kinds = {name: kind_of(FILES / name) for name in ("pairs.zip", "pairs.xlsx", "pretty.jsonl", "semicolon.csv")}
    assert kinds == {"pairs.zip": "jsonl", "pairs.xlsx": "xlsx", "pretty.jsonl": "json", "semicolon.csv": "delimited"}
