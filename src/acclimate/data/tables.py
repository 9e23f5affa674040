"""Any table -> rows by column name: JSONL, JSON, TSV, CSV, parquet, Arrow, Excel.

What a file is, `kinds` says, and how its bytes become lines, `opening`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from acclimate.data.delimited import fields_of
from acclimate.data.kinds import DELIMITERS, kind_of, no_rows
from acclimate.data.names import TEXTS
from acclimate.data.opening import COMPRESSED, encoding_note, extension, open_bytes, read_lines
from acclimate.data.sheets import other_sheets, sheet_rows
from acclimate.data.whole_json import items_of, load_json
from acclimate.errors import DataError
from acclimate.files import parse_jsonl
from acclimate.types import Rejected

SHOWN_CHARS = 200
BATCH_ROWS = 8192
"""Rows of a columnar file held at a time."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: where it stands (1-based line, or position in an array) and its values by column name."""

    source: str
    row: int
    values: dict[str, Any]

    def rejected(self, reason: str) -> Rejected:
        """This row as a rejected one, with the beginning of what it holds."""
        shown = " ".join(str(value) for value in list(self.values.values())[:2])[:SHOWN_CHARS]
        return Rejected(self.source, self.row, writable(reason), writable(shown))


Rows: TypeAlias = Iterator[Row | Rejected]


def read_table(path: Path, source: str, columns: Sequence[str] = (), *, batch_rows: int = BATCH_ROWS) -> Rows:
    """Read the rows of one file, whose content, then extension, gives its format; broken rows come as `Rejected`.

    Args:
        path: the file, compressed or not.
        source: the name under which rows report where they come from.
        columns: names for a delimited file, or a sheet, without a header.
        batch_rows: rows of a columnar file held at a time: fewer, where each holds much.

    Raises:
        DataError: the file is missing, empty, or not readable in its format; or it says the names of its columns itself
            and others are given.
    """
    kind = kind_of(path)
    if kind == "other":
        raise no_rows(path)
    check_columns(path, columns)
    if kind in ("parquet", "arrow"):
        return _columnar(path, source, kind, batch_rows)
    if kind == "xlsx":
        return _named(path, source, sheet_rows(path), columns)
    if kind == "json":
        return _whole_json(path, source)
    if kind == "jsonl":
        return _jsonl(path, source)
    return _named(path, source, fields_of(path, source), columns)


def check_columns(path: Path, columns: Sequence[str]) -> None:
    """Make sure that names are given for columns only where a file may lack them.

    Raises:
        DataError: the file's rows say the names themselves.
    """
    if columns and kind_of(path) in ("json", "jsonl", "parquet", "arrow"):
        raise DataError(
            f"{path} says the names of its columns itself, and --columns names {', '.join(columns)}",
            possible="--columns for CSV, TSV and sheets without a header",
            fix="Leave it out, or say by --anchor-column and --positive-column which columns are read.",
        )


def notes_of(path: Path) -> list[str]:
    """What a user should know of how a file is read: a detected encoding, sheets that are not read."""
    kind = kind_of(path)
    if kind == "xlsx":
        return other_sheets(path)
    return [note for note in [encoding_note(path)] if note] if kind in ("json", "jsonl", "delimited", "text") else []


def is_plain(path: Path) -> bool:
    """Whether a file has neither objects nor columns: any text file whose name is not that of a table."""
    return kind_of(path) == "text" and extension(path) not in DELIMITERS


def rows_by_line(path: Path, source: str, column: str) -> Rows:
    """The lines of a plain text file as rows of one column; empty lines are none."""
    for row, text, error in read_lines(path):
        if error:
            yield Rejected(source, row, error, "")
        elif text.strip():
            yield Row(source, row, {column: text})


def writable(text: str) -> str:
    """The text as UTF-8 can hold it: half a character, which JSON can smuggle in, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _jsonl(path: Path, source: str) -> Rows:
    for line in parse_jsonl(read_lines(path)):
        if line.value is None:
            yield Rejected(source, line.row, line.error, line.text)
        else:
            yield Row(source, line.row, line.value)


def _whole_json(path: Path, source: str) -> Rows:
    try:
        value = load_json(path)
    except DataError:
        # Not one value: lines of objects, the first of which is broken; if all are, the whole is meant.
        if not any(line.value is not None for line in parse_jsonl(read_lines(path))):
            if extension(path) in (".jsonl", ".ndjson"):
                return _jsonl(path, source)
            raise
        return _jsonl(path, source)
    return json_rows(items_of(value, path), source)


def json_rows(items: Iterable[Any], source: str) -> Rows:
    """The items of a JSON array as rows: objects, or texts by themselves; what is neither is rejected."""
    for row, item in enumerate(items, start=1):
        if isinstance(item, dict | str):
            yield Row(source, row, {TEXTS[0]: item} if isinstance(item, str) else item)
        else:
            yield Rejected(
                source, row, f"a JSON {type(item).__name__}, not an object", writable(str(item)[:SHOWN_CHARS])
            )


def _named(path: Path, source: str, fields: Iterator[tuple[int, list[Any]] | Rejected], columns: Sequence[str]) -> Rows:
    """Fields with the names of their columns: those given, else those of the first row. Excel adds empty columns at the
    right, which are none."""
    names = [name.strip() for name in columns]
    for row in fields:
        if isinstance(row, Rejected):
            yield row
            continue
        number, values = row
        while len(values) > max(len(names), 1) and not str(values[-1]).strip():
            values.pop()
        if not names:
            names = _header(path, values)
        elif len(values) != len(names):
            if columns and row_is_first(number):
                raise DataError(
                    f"{path} row {number} has {len(values)} columns, --columns names {len(names)}: {', '.join(names)}",
                    fix="Name every column, in the order of the file.",
                )
            reason = f"wrong number of columns ({len(values)}, expected {len(names)})"
            yield Rejected(source, number, reason, " ".join(map(str, values))[:SHOWN_CHARS])
        elif not (row_is_first(number) and values == names):
            yield Row(source, number, dict(zip(names, values, strict=True)))


def row_is_first(number: int) -> bool:
    """Whether this is the file's first line: the header, if there is one."""
    return number == 1


def _header(path: Path, values: list[Any]) -> list[str]:
    names = [str(value).strip() for value in values]
    twice = sorted({name for name in names if name and names.count(name) > 1})  # an empty one names no column
    if twice:
        raise DataError(
            f"{path} row 1: column {twice[0][:60]!r} comes twice; found: {', '.join(names)[:SHOWN_CHARS]}",
            fix="Rename one, or give --columns if the file has no header.",
        )
    return names


def _columnar(path: Path, source: str, kind: str, batch_rows: int) -> Rows:
    import pyarrow
    import pyarrow.parquet

    with open_bytes(path) as stream:
        # Their footer is read first, which a compressed stream cannot do.
        held: Any = io.BytesIO(stream.read()) if path.suffix.lower() in COMPRESSED else path
    try:
        parquet = kind == "parquet"
        batches = pyarrow.parquet.ParquetFile(held).iter_batches(batch_size=batch_rows) if parquet else _arrow(held)
        row = 0
        for batch in batches:
            batch.validate(full=True)  # damaged offsets would be read as memory that is not there
            for start in range(0, batch.num_rows, batch_rows):  # Arrow's own batches may be of any size
                for values in batch.slice(start, batch_rows).to_pylist():
                    row += 1
                    yield Row(source, row, values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as {kind} ({error})", fix="Write the file again.") from None


def _arrow(held: Any) -> Iterator[Any]:
    """Record batches of either of Arrow's two formats: the file, and the stream, which `datasets` saves."""
    import pyarrow

    opened = held if isinstance(held, io.BytesIO) else pyarrow.memory_map(str(held))
    try:
        reader = pyarrow.ipc.open_file(opened)
    except pyarrow.ArrowInvalid:
        opened.seek(0)
        yield from pyarrow.ipc.open_stream(opened)
    else:
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
