"""Any bytes, any table: the readers give rows or one of our errors, and every row is read or counted.

A longer run: `ACCLIMATE_FUZZ_EXAMPLES=20000 pytest tests/data/test_fuzz.py`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from acclimate.configs import PrepareConfig
from acclimate.data.background import texts_of_source
from acclimate.data.build import build_dataset
from acclimate.data.dataset import load_dataset, write_dataset
from acclimate.data.kinds import EXTENSIONS, OTHER
from acclimate.data.lexicon import read_lexicon
from acclimate.data.opening import COMPRESSED, detect_encoding
from acclimate.data.readers import read_source, source_hashes
from acclimate.data.records import RawData
from acclimate.data.texts import read_texts
from acclimate.data.topics import read_topics
from acclimate.errors import AcclimateError, DataError

EXAMPLES = int(os.environ.get("ACCLIMATE_FUZZ_EXAMPLES", "30"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

FILES = [file for file in sorted((Path(__file__).parent / "files").iterdir()) if file.is_file()]
SETTINGS = PrepareConfig(test_fraction=0.0, dev_fraction=0.0, min_chars=1)
NAMES = [
    *("query", "question", "anchor", "prompt", "answer", "response", "positive", "pos", "negative", "neg", "label"),
    *("score", "sentence1", "sentence2", "text", "title", "_id", "docid", "contents", "messages", "positive_passages"),
    *("pos_scores", "topic", "term", "Query"),
]
ENDINGS = st.sampled_from((*EXTENSIONS, *OTHER, ".md", "", ".JSONL"))
PACKED = st.sampled_from(("", "", *COMPRESSED))

texts = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    [
        '"',
        '""',
        'a "b" c',
        '"open',
        "a\tb",
        "a\nb",
        "a\r\nb",
        "\ufeff",
        "{",
        "[1]",
        "a,b",
        "NaN",
        "true",
        "\0",
        "\x85",
        "\u2028",
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.text(max_size=5)
cells = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "text", "title", "x"]), inner, max_size=3)
    ),
)
names = st.lists(st.sampled_from(NAMES) | texts, min_size=1, max_size=5, unique=True)


@st.composite
def tables(draw: st.DrawFn, cell: st.SearchStrategy[Any]) -> tuple[list[str], list[list[Any]]]:
    """Column names, of which two are often a pair that is known, and rows."""
    columns = draw(names)
    if draw(st.booleans()):
        columns = list(dict.fromkeys(["query", "answer", *columns]))
    return columns, draw(st.lists(st.tuples(*[cell] * len(columns)).map(list), max_size=8))


@contextlib.contextmanager
def written(name: str, content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def read_by_all(path: Path) -> None:
    """Every reader of files: none may fail otherwise than by our errors."""
    readers: list[Callable[[], object]] = [
        lambda: build_dataset(str(path), SETTINGS, seed=1),
        lambda: source_hashes(str(path), None),
        lambda: read_texts(path),
        lambda: texts_of_source(str(path)),
        lambda: read_lexicon(path),
        lambda: read_topics(path),
    ]
    for reader in readers:
        with contextlib.suppress(AcclimateError):
            reader()


@fuzz
@given(st.binary(max_size=200) | texts.map(str.encode), ENDINGS, PACKED)
def test_any_bytes_under_any_name(content: bytes, ending: str, packed: str) -> None:
    with written(f"x{ending}{packed}", content) as path:
        read_by_all(path)


@fuzz
@given(st.sampled_from(FILES), st.data())
def test_any_fault_in_a_file_that_was_good(file: Path, data: st.DataObject) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.sampled_from([start, start + 1, start + 3, len(content)]))
        content[start:end] = data.draw(st.binary(max_size=4))
    with written(file.name, bytes(content)) as path:
        read_by_all(path)


@fuzz
@given(tables(cells))
def test_every_row_of_jsonl_is_read_or_counted(table: tuple[list[str], list[list[Any]]]) -> None:
    columns, rows = table
    # A single object whose values are all lists is a table, column by column, also in a file of this name.
    assume(len(rows) != 1 or not all(isinstance(cell, list) for cell in rows[0]))
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    with written("x.jsonl", "\n".join(lines).encode()) as path:
        check_rows(path, set(range(1, len(rows) + 1)))
    with written("x.json", json.dumps([dict(zip(columns, row, strict=True)) for row in rows]).encode()) as path:
        check_rows(path, set(range(1, len(rows) + 1)))


@fuzz
@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=6))
@example([b"\xa0", b"\x80\x80\x80"])
def test_every_line_of_broken_jsonl_is_counted(lines: list[bytes]) -> None:
    good = json.dumps({"query": "who is it", "answer": "it is me"}).encode()
    with written("x.jsonl", b"\n".join([good, *lines, good])) as path:
        encoding = detect_encoding(path)  # which says what white space is: b"\xa0" is in many, and nothing in UTF-8
        filled = {number for number, line in enumerate(lines, start=2) if line.decode(encoding, "replace").strip()}
        rows = filled | {1, len(lines) + 2}
        check_rows(path, rows, blank_may_count=True)


@fuzz
@given(tables(texts), st.sampled_from(",;\t"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_every_row_of_csv_is_read_or_counted(
    table: tuple[list[str], list[list[str]]], delimiter: str, encoding: str
) -> None:
    columns, rows = table
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([columns, *rows])
    count = sum(any(value.strip() for value in row) for row in rows)
    with written("x.tsv" if delimiter == "\t" else "x.csv", stream.getvalue().encode(encoding)) as path:
        check_count(path, count)


@fuzz
@given(tables(texts | st.integers(-9, 9) | st.none()))
def test_every_row_of_columnar_files_is_read_or_counted(table: tuple[list[str], list[list[Any]]]) -> None:
    columns, rows = table
    strings = [[None if value is None else str(value) for value in row] for row in rows]
    with written("x.parquet", b"") as path:
        columnar = {
            name: pyarrow.array([row[place] for row in strings], pyarrow.string()) for place, name in enumerate(columns)
        }
        pyarrow.parquet.write_table(pyarrow.table(columnar), path)
        check_rows(path, set(range(1, len(rows) + 1)))
    book = openpyxl.Workbook()
    plain = [[ILLEGAL_CHARACTERS_RE.sub("", name).lstrip("=") for name in columns], *rows]
    for row in plain:
        book.active.append([ILLEGAL_CHARACTERS_RE.sub("", v).lstrip("=") if isinstance(v, str) else v for v in row])
    with written("x.xlsx", b"") as path:
        book.save(path)
        with contextlib.suppress(AcclimateError):
            build_dataset(str(path), SETTINGS, seed=1)


ids = st.sampled_from(["a", "b", "c", "1", "q 1", "é", "e\u0301", ""])


@fuzz
@given(
    st.lists(st.tuples(ids, texts), min_size=1, max_size=5),
    st.lists(st.tuples(ids, texts), min_size=1, max_size=5),
    st.lists(st.tuples(ids, ids, st.sampled_from(["0", "1", "2", "x", ""])), max_size=6),
    st.sampled_from(["query-id\tcorpus-id\tscore\n", ""]),
)
def test_every_judgement_is_read_or_counted(
    queries: list[tuple[str, str]], corpus: list[tuple[str, str]], qrels: list[tuple[str, str, str]], header: str
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "qrels").mkdir()
        for name, rows in (("queries", queries), ("corpus", corpus)):
            lines = [json.dumps({"_id": key, "text": text}) for key, text in rows]
            (folder / f"{name}.jsonl").write_text("\n".join(lines))
        lines = ["\t".join(row) for row in qrels]
        (folder / "qrels" / "test.tsv").write_text(header + "\n".join(lines))
        try:
            raw = read_source(str(folder), SETTINGS)
        except DataError:
            return
        counted = sum(row.source == "qrels/test.tsv" for row in raw.rejected)
        assert len(raw.records) + counted == sum(bool(line.strip()) for line in lines)
        for name, rows, kept in (("queries.jsonl", queries, raw.queries), ("corpus.jsonl", corpus, raw.corpus)):
            refused = sum(row.source == name for row in raw.rejected)
            repeated = sum(key in dict(rows[:place]) for place, (key, _) in enumerate(rows))
            assert len(kept) + refused <= len(rows) <= len(kept) + refused + repeated
        check_written(str(folder))


def check_rows(path: Path, expected: set[int], blank_may_count: bool = False) -> None:
    """All rows by number; an error is enough where no row at all can be used."""
    with contextlib.suppress(DataError):
        found = rows_of(read_source(str(path), SETTINGS))
        assert found >= expected if blank_may_count else found == expected
        check_written(str(path))


def check_count(path: Path, expected: int) -> None:
    with contextlib.suppress(DataError):
        assert len(rows_of(read_source(str(path), SETTINGS))) == expected
        check_written(str(path))


def rows_of(raw: RawData) -> set[int]:
    assert not any(record.label is not None and math.isnan(record.label) for record in raw.records)
    return {record.row for record in raw.records} | {row.row for row in raw.rejected}


def check_written(source: str) -> None:
    """What is built can be written, and read again as it was."""
    try:
        dataset, rejected = build_dataset(source, SETTINGS, seed=1)
    except DataError:
        return
    with tempfile.TemporaryDirectory() as place:
        write_dataset(Path(place), dataset, rejected)
        again = load_dataset(Path(place))
        assert (again.corpus, again.queries, again.qrels) == (dataset.corpus, dataset.queries, dataset.qrels)
        assert (again.pairs, again.examples) == (dataset.pairs, dataset.examples)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
@fuzz
@given(st.lists(st.text(st.sampled_from('ab",\t '), max_size=12), max_size=8))
def test_no_line_of_broken_csv_is_lost(name: str, lines: list[str]) -> None:
    """Every letter is in a row that is read, or in one that is rejected, once."""
    delimiter = "," if name == "x.csv" else "\t"
    written_lines = [f"query{delimiter}answer", *lines, f"ab{delimiter}ab"]
    with written(name, "\n".join(written_lines).encode()) as path, contextlib.suppress(DataError):
        raw = read_source(str(path), SETTINGS)
        read = [record.anchor + record.positive for record in raw.records] + [row.text for row in raw.rejected]
        for letter in "ab":
            assert "".join(read).count(letter) == "".join(written_lines[1:]).count(letter)
