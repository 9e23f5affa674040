"""Documents to search, in every form, with ids and typed metadata; and what cannot be used."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from acclimate.data.document_files import read_file
from acclimate.data.documents import Documents, SourceDocument
from acclimate.data.records import BadRowError
from acclimate.errors import DataError, MissingExtraError
from acclimate.files import write_jsonl


def read(*sources: Path, text_field: str | None = None) -> tuple[dict[str, SourceDocument], list[str]]:
    documents = Documents(sources, text_field)
    found = {document.id: document for document in documents}
    return found, [f"{row.source} {row.row}: {row.reason}" for row in documents.rejected]


def write_pdf(path: Path, *lines: str, title: str = "") -> None:
    """A PDF of one page, written by hand: it needs no package."""
    shown = "".join(f"({line}) Tj T* " for line in lines)
    stream = f"BT /F1 12 Tf 14 TL 40 700 Td {shown}ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R "
        "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        f"<< /Title ({title}) >>",
    ]
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    trailer = f"trailer\n<< /Size 6 /Root 1 0 R /Info 5 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    path.write_text(f"{body}xref\n0 6\n0000000000 65535 f \n{table}{trailer}", encoding="ascii")


def write_docx(path: Path) -> None:
    import docx

    document = docx.Document()
    document.core_properties.title = "Rust"
    document.add_paragraph("Wheat rust.")
    table = document.add_table(rows=1, cols=3)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "a"
    table.cell(0, 2).text = "b"
    document.add_paragraph("After the table.")
    document.save(str(path))


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    (tmp_path / "a.txt").write_text("\ufeffOne  line\nand more\n\n\n\nA paragraph\n", encoding="utf-8")
    (tmp_path / "deep" / "b.md").write_text("# Head\n\ntext", encoding="utf-8")
    (tmp_path / "deep" / "c.HTML").write_text(
        "<html><head><title>T &amp; t</title><style>no</style></head><body><nav>menu</nav><main><h1>Head</h1>"
        "<p>Foo <b>b</b>ar.<br>line<ul><li>one<li>two</ul>tail<script>no()</script><table><tr><td>x</td><td>y</td></tr>"
        "</table></main><footer>no</footer></body></html>",
        encoding="utf-8",
    )
    (tmp_path / "deep" / "er" / "zh.htm").write_bytes('<meta charset="gbk"><p>小麦锈病'.encode("gbk"))
    write_pdf(tmp_path / "d.pdf", "Wheat rust is a fun-", "gal disease", title="On rust")
    write_docx(tmp_path / "e.docx")
    (tmp_path / "data.csv").write_text("id,text\n1,no document of this folder\n")
    found, rejected = read(tmp_path)
    assert rejected == []
    assert {name: document.text for name, document in found.items()} == {
        "a.txt": "One  line\nand more\n\n\n\nA paragraph",
        "d.pdf": "Wheat rust is a fungal disease",
        "deep/b.md": "# Head\n\ntext",
        "deep/c.HTML": "Head\n\nFoo bar.\n\nline\n\none\n\ntwo\n\ntail\n\nx y",
        "deep/er/zh.htm": "小麦锈病",
        "e.docx": "Wheat rust.\n\na b\n\nAfter the table.",
    }
    titles = {name: document.metadata for name, document in found.items() if document.metadata}
    assert titles == {
        "d.pdf": {"title": "On rust"},
        "deep/c.HTML": {"title": "T & t"},
        "e.docx": {"title": "Rust"},
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"\xff\xfe\x00", "is not UTF-16 text (byte 0)"),
        ("a.html", b'<meta charset="klingon">x', "unknown encoding 'klingon'"),
        ("a.html", b"<script>x</script>", "no text in it"),
        ("a.md", b" \n ", "no text in it"),
        ("a.pdf", b"%PDF-1.4 cut off", "not readable as PDF"),
        ("a.docx", b"PK no zip", "not readable as Word document"),
    ],
)
def test_a_damaged_file_is_one_rejected_row(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text("good")
    found, rejected = read(tmp_path)
    assert list(found) == ["good.txt"]
    assert len(rejected) == 1 and rejected[0].startswith(f"{name} 1: {reason}")


def test_a_pdf_without_text_and_one_cut_off(tmp_path: Path) -> None:
    write_pdf(tmp_path / "scan.pdf")
    with pytest.raises(BadRowError, match="no text in it \\(a scan"):
        read_file(tmp_path / "scan.pdf")
    write_pdf(tmp_path / "cut.pdf", "some text")
    whole = (tmp_path / "cut.pdf").read_bytes()
    for end in range(10, len(whole), 40):
        (tmp_path / "cut.pdf").write_bytes(whole[:end])
        try:
            read_file(tmp_path / "cut.pdf")
        except BadRowError as error:
            assert str(error)


@pytest.mark.parametrize(("suffix", "package"), [(".html", "selectolax"), (".pdf", "pypdf"), (".docx", "docx")])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, package: str) -> None:
    original: Callable[..., Any] = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    (tmp_path / f"a{suffix}").write_text("x")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"a\..* needs .*\[documents\].*pip install 'acclimate\[documents\]'"):
        read(tmp_path)


def test_jsonl_keeps_its_types(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "_id": "a",
            "title": "Rust",
            "text": "of wheat",
            "year": 2020,
            "score": 0.5,
            "open": True,
            "tags": ["x", 1],
            "more": {},
        },
        {"id": 7, "text": "no title", "year": None, "crop": "rice"},
        {"text": "no id"},
        {"_id": "b"},
        {"_id": "c", "text": " "},
        {"_id": "a", "text": "another text"},
        {"_id": "a", "text": "Rust of wheat"},
    ]
    path = tmp_path / "corpus.jsonl"
    write_jsonl(path, rows)
    with path.open("a") as stream:
        stream.write("{broken\n")
    documents = Documents([path])
    found = list(documents)
    first, second, third, again = found
    assert first.text == "Rust of wheat" and again.id == "a"
    assert first.metadata == {"title": "Rust", "year": 2020, "score": 0.5, "open": True, "tags": ("x", 1)}
    assert type(first.metadata["open"]) is bool and type(first.metadata["year"]) is int
    assert (second.id, second.metadata) == ("7", {"crop": "rice"})
    assert len(third.id) == 16 and third.metadata == {}
    assert list(documents.ignored) == ["more"]
    assert [(row.row, row.reason.partition(" (")[0]) for row in documents.rejected] == [
        (4, "no text"),
        (5, "empty"),
        (6, "the id 'a' came before with another text"),
        (8, "not JSON"),
    ]
    assert documents.count() == 8


def test_a_csv_has_the_types_that_all_its_values_have(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_text(
        "id,body,year,price,open,code,mixed\n1,one,2020,1.5,true,007,3\n2,two,,2,FALSE,8,x\n3,three,1999,3e0,true,9,4\n"
    )
    found, rejected = read(path, text_field="body")
    assert rejected == []
    assert found["1"].metadata == {
        "year": 2020, "price": "1.5", "open": True, "code": "007", "mixed": "3",
    }  # fmt: skip
    path.write_text("id,text,price\n1,one,1.5\n2,two,2\n3,three,3.0e1\n")
    assert [document.metadata["price"] for document in read(path)[0].values()] == [1.5, 2.0, 30.0]


def test_parquet_and_beir(tmp_path: Path) -> None:
    import datetime

    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"_id": ["a"], "text": ["one"], "day": [datetime.date(2024, 1, 2)], "n": [float("nan")]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    documents = Documents([tmp_path / "c.parquet"])
    assert next(iter(documents)) == SourceDocument("a", "one", {"day": "2024-01-02"}, "c.parquet", 1)
    assert documents.count() == 1
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    write_jsonl(
        beir / "corpus.jsonl", [{"_id": "d/1", "title": "T", "text": "x", "metadata": {"year": 1, "none": None}}]
    )
    found, _ = read(beir, tmp_path / "c.parquet")
    assert {name: document.text for name, document in found.items()} == {"d/1": "T x", "a": "one"}
    assert found["d/1"].metadata == {"title": "T", "year": 1}


def test_a_folder_of_tables(tmp_path: Path) -> None:
    for shard in range(2):
        write_jsonl(tmp_path / f"shard-{shard}.jsonl", [{"_id": f"d{shard}", "text": "x"}])
    assert list(read(tmp_path)[0]) == ["d0", "d1"]


def test_a_data_set_of_the_library_datasets(tmp_path: Path) -> None:
    """In a folder of `save_to_disk` as from the hub: all splits, one after the other."""
    splits = {name: datasets.Dataset.from_list([{"_id": name, "text": f"text of {name}", "year": 2020}])
              for name in ("train", "test")}  # fmt: skip
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    found, rejected = read(tmp_path / "saved")
    assert {(one.id, one.text, one.source, one.row) for one in found.values()} == {
        ("train", "text of train", "saved/train", 1),
        ("test", "text of test", "saved/test", 1),
    }
    assert found["test"].metadata == {"year": 2020} and rejected == []
    assert Documents([tmp_path / "saved"]).count() == 2
    with pytest.raises(DataError, match="nobody-here/nothing-there: no such file or folder here, and the hub"):
        read(Path("nobody-here/nothing-there"))


def test_sources_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.exe").write_text("x")
    write_jsonl(tmp_path / "pairs.jsonl", [{"query": "q", "response": "r"}])
    for name, message in {
        "none.jsonl": "no such file",
        "empty": "no document in it",
        "a.exe": "not a known form",
        "pairs.jsonl": "no usable document; pairs.jsonl row 1: no text .columns found: query, response",
    }.items():
        with pytest.raises(DataError, match=message):
            read(tmp_path / name)


def test_a_text_that_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("x" * 20_000_001)
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "x" * 1_000_001}) + "\n" + json.dumps({"text": "y"}))
    with pytest.raises(DataError, match="text too long"):
        read(tmp_path / "long.txt")
    _, rejected = read(tmp_path / "long.jsonl")
    assert "text too long" in rejected[0]
