"""Any table -> rows by column name: JSONL, JSON arrays, TSV, CSV, parquet, a dataset on the hub.

Text files are read line by line here, so that a broken line costs that line and not the file.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from acclimate.errors import DataError
from acclimate.files import MAX_LINE_BYTES, iter_jsonl, iter_lines, open_input
from acclimate.paths import missing_path
from acclimate.types import Rejected

EXTENSIONS = (".jsonl", ".ndjson", ".json", ".tsv", ".csv", ".txt", ".parquet")
DELIMITERS = {".tsv": "\t", ".csv": ","}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
HUB_TIMEOUT_S = 5
"""How long the hub may take to say whether it has a dataset."""
NO_DATASET = {
    "possible": "a file, a folder, or owner/name[:configuration] of a dataset in the local cache or within reach",
    "fix": "Check the path; without a connection, download the data and give the file.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: where it stands (1-based line, or position in an array) and its values by column name."""

    source: str
    row: int
    values: dict[str, Any]


Rows: TypeAlias = Iterator[Row | Rejected]


def read_table(path: Path, source: str, columns: Sequence[str] = ()) -> Rows:
    """Read the rows of one file, whose content, then extension, gives its format; broken rows come as `Rejected`.

    Args:
        path: the file.
        source: the name under which rows report where they come from.
        columns: names for a delimited file without a header.

    Raises:
        DataError: the file is missing, empty, or not readable in its format.
    """
    kind = detect_format(path)
    if kind == "parquet":
        return _parquet(path, source)
    if kind == "array":
        return _json_array(path, source)
    if kind == "jsonl":
        return _jsonl(path, source)
    return _delimited(path, source, columns)


def detect_format(path: Path) -> str:
    """Tell a file's format: parquet, array (of JSON objects), jsonl or delimited."""
    with open_input(path) as stream:
        head: bytes = stream.read(4096)
    extension = path.suffix.lower()
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if head.startswith(b"PAR1") or extension == ".parquet":
        return "parquet"
    if extension in (".jsonl", ".ndjson"):
        return "jsonl"
    if extension in DELIMITERS:
        return "delimited"
    if start == b"[":
        return "array"
    return "jsonl" if start == b"{" or extension == ".json" else "delimited"


def is_plain(path: Path) -> bool:
    """Whether a file has neither objects nor columns: any text file whose name is not that of a table."""
    return detect_format(path) == "delimited" and path.suffix.lower() not in DELIMITERS


def _jsonl(path: Path, source: str) -> Rows:
    for line in iter_jsonl(path):
        if line.value is None:
            yield Rejected(source, line.row, line.error, line.text)
        else:
            yield Row(source, line.row, line.value)


def _json_array(path: Path, source: str) -> Rows:
    with open_input(path) as stream:
        try:
            items = json.loads(stream.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: not a JSON array ({error})", fix="Correct it, or write one object a line."
            ) from None
    for row, item in enumerate(items, start=1):
        if isinstance(item, dict):
            yield Row(source, row, item)
        else:
            yield Rejected(source, row, f"a JSON {type(item).__name__}, not an object", str(item)[:200])


def _delimited(path: Path, source: str, columns: Sequence[str]) -> Rows:
    first = next((text for _, text, error in iter_lines(path) if not error and text.strip()), "")
    delimiter = _delimiter(first, path.suffix.lower())
    # TSV in the wild is mostly raw: a quote is a letter. Only a quoted first line says that all fields are quoted.
    raw = delimiter == "\t" and not first.startswith('"')
    fields = _raw_fields(path, source) if raw else _quoted_fields(path, source, delimiter)
    names = [name.strip() for name in columns]
    for row in fields:
        if isinstance(row, Rejected):
            yield row
            continue
        number, values = row
        if not names:
            names = _header(path, values)
        elif len(values) != len(names):
            if columns and row_is_first(number):
                raise DataError(
                    f"{path} row {number} has {len(values)} columns, --columns names {len(names)}: {', '.join(names)}",
                    fix="Name every column, in the order of the file.",
                )
            reason = f"wrong number of columns ({len(values)}, expected {len(names)})"
            yield Rejected(source, number, reason, delimiter.join(values)[:200])
        elif not (row_is_first(number) and values == names):
            yield Row(source, number, dict(zip(names, values, strict=True)))


def row_is_first(number: int) -> bool:
    """Whether this is the file's first line: the header, if there is one."""
    return number == 1


def _header(path: Path, values: list[str]) -> list[str]:
    names = [value.strip() for value in values]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path} row 1: column {twice[0]!r} comes twice; found: {', '.join(names)}",
            fix="Rename one, or give --columns if the file has no header.",
        )
    return names


def _delimiter(first: str, extension: str) -> str:
    """The extension's delimiter if the first line has it, else the commonest one there."""
    preferred = DELIMITERS.get(extension, "\t")
    if preferred in first:
        return preferred
    commonest = max("\t,;", key=first.count)
    return commonest if commonest in first else preferred


def _raw_fields(path: Path, source: str) -> Iterator[tuple[int, list[str]] | Rejected]:
    for row, text, error in iter_lines(path):
        if error:
            yield Rejected(source, row, error, "")
        elif text.strip():
            yield row, [_unquote(field) for field in text.split("\t")]


def _unquote(field: str) -> str:
    """Undo a CSV writer's quoting of a field without a tab: it quotes only what holds a quote, and doubles that."""
    if len(field) > 4 and field[0] == field[-1] == '"' and '""' in (inner := field[1:-1]):
        plain = inner.replace('""', "")
        if '"' not in plain:
            return inner.replace('""', '"')
    return field


def _quoted_fields(path: Path, source: str, delimiter: str) -> Iterator[tuple[int, list[str]] | Rejected]:
    broken: list[Rejected] = []
    last = 0

    def lines() -> Iterator[str]:
        nonlocal last
        for row, text, error in iter_lines(path):
            last = row
            if error:
                broken.append(Rejected(source, row, error, ""))
            else:
                yield text + "\n"

    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    while True:
        start = last + 1
        try:
            values = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            # The reader starts afresh on the next line, so this costs only the lines the row went over.
            broken.append(Rejected(source, start, f"not CSV ({error})", ""))
        else:
            start += sum(1 for item in broken if item.row >= start)
            if any(value.strip() for value in values):
                yield start, values
        yield from broken
        broken.clear()
    yield from broken


def _parquet(path: Path, source: str) -> Rows:
    import pyarrow
    import pyarrow.parquet

    with open_input(path):
        pass
    try:
        table = pyarrow.parquet.ParquetFile(path)
        row = 0
        for batch in table.iter_batches(batch_size=8192):
            for values in batch.to_pylist():
                row += 1
                yield Row(source, row, values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as parquet ({error})", fix="Write the file again.") from None


def load_hub(name: str) -> dict[str, Any]:
    """Load a hub dataset, from the local cache or the hub: split name -> `datasets.Dataset`.

    Args:
        name: `owner/name` or `owner/name:configuration`.

    Raises:
        DataError: it is neither a path nor a dataset that can be loaded.
    """
    import datasets

    path, _, configuration = name.partition(":")
    if (wrong := missing_path(path)) is not None or (wrong := _unknown_to_hub(path)) is not None:
        raise DataError(f"{name}: {wrong}", **NO_DATASET)
    try:
        loaded = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # the library, its loaders and its HTTP client each have an error tree of their own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{name}: no such file or folder here, and the hub's dataset of this name cannot be loaded ({reason})",
            **NO_DATASET,
        ) from None
    return dict(loaded)


def _unknown_to_hub(path: str) -> str | None:
    """Ask the hub once, without retries, whether it has a dataset; None where it has, or where the cache may know."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    if (Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___")).is_dir():
        return None
    try:
        HfApi().dataset_info(path, timeout=HUB_TIMEOUT_S)
    except OfflineModeIsEnabled:
        return None  # the library says at once that there is nothing in the cache
    except Exception as error:  # its HTTP client has an error tree of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return f"no such file or folder here, and the hub has no such dataset, or cannot be reached ({reason})"
    return None


def hub_rows(table: Iterable[dict[str, Any]], source: str) -> Rows:
    """The rows of one split of a hub dataset."""
    for row, values in enumerate(table, start=1):
        yield Row(source, row, dict(values))
