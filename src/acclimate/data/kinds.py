"""What a file is, by its first bytes and then its name: the one detection of all commands."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Literal, TypeAlias

from acclimate.data.opening import (
    COMPRESSED,
    WIDE,
    detect_encoding,
    extension,
    is_office,
    open_bytes,
    open_text_bytes,
    read_lines,
)
from acclimate.errors import DataError
from acclimate.files import open_input

FileKind: TypeAlias = Literal["parquet", "arrow", "xlsx", "json", "jsonl", "delimited", "text", "other"]
"""json: one JSON value over the whole file; jsonl: one object a line; delimited: named as a table of CSV or TSV; text:
any other text, whether lines or a table; other: nothing that is read as rows (`other_kind` says what)."""

DELIMITERS = {".tsv": "\t", ".tab": "\t", ".csv": ","}
JSON_LINES = (".jsonl", ".ndjson")
BINARY: dict[str, FileKind] = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".xlsx": "xlsx"}
EXTENSIONS = (*JSON_LINES, ".json", *DELIMITERS, ".txt", *BINARY, ".xlsm")
"""Names of tables, compression aside."""
OTHER: dict[str, str] = {
    ".pdf": "a PDF",
    ".docx": "a Word document",
    ".doc": "a Word document",
    ".pptx": "a presentation",
    ".odt": "an OpenDocument text",
    ".rtf": "a rich text document",
    ".epub": "an e-book",
    ".html": "a web page",
    ".htm": "a web page",
    ".xls": "an Excel file of the format before 2007",
    ".ods": "an OpenDocument sheet",
    ".pkl": "a pickle, which may run any code",
    ".pickle": "a pickle, which may run any code",
    ".sqlite": "an SQLite database",
    ".db": "a database",
    ".tar": "an archive",
    ".tgz": "an archive",
    ".7z": "an archive",
    ".rar": "an archive",
    ".npy": "an array of numbers",
    ".npz": "an array of numbers",
    ".safetensors": "a file of tensors",
    ".orc": "an ORC file",
    ".avro": "an Avro file",
}
MAGIC: dict[bytes, str] = {
    b"%PDF-": ".pdf",
    b"\xd0\xcf\x11\xe0": ".xls",
    b"SQLite format 3\0": ".sqlite",
    b"7z\xbc\xaf": ".7z",
    b"Rar!": ".rar",
    b"\x93NUMPY": ".npy",
    b"Obj\x01": ".avro",
    b"{\\rtf": ".rtf",
    b"\x80\x04\x95": ".pkl",
    b"\x80\x05\x95": ".pkl",
}
WEB_PAGES = (b"<!doctype html", b"<html")


def kind_of(path: Path) -> FileKind:
    """Tell what a file is; a compressed one by what it holds.

    Raises:
        DataError: it is missing, a folder, empty, or damaged.
    """
    ending = extension(path)
    if is_office(path):
        return "xlsx" if "xl/workbook.xml" in _members(path) else "other"
    with open_bytes(path) as stream:
        head = stream.read(4096)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1"):
        return "arrow"
    if other_kind(path, head):
        return "other"
    if ending in BINARY:
        return BINARY[ending]
    if ending in DELIMITERS:
        return "delimited"
    return _kind_of_text(path, ending)


def other_kind(path: Path, head: bytes | None = None) -> str:
    """Say in words what a file is that holds no rows; "" for all others.

    Args:
        path: the file; its name counts where its first bytes say nothing.
        head: its first bytes, if they were read already.
    """
    if head is None:
        with open_bytes(path) as stream:
            head = stream.read(4096)
    if head[257:262] == b"ustar":
        return OTHER[".tar"]
    if head.lstrip()[:20].lower().startswith(WEB_PAGES):
        return OTHER[".html"]
    by_content = next((ending for magic, ending in MAGIC.items() if head.startswith(magic)), "")
    return OTHER.get(by_content) or OTHER.get(extension(path), "an office document" if is_office(path) else "")


def no_rows(path: Path) -> DataError:
    """The error for a file of kind "other" where rows of texts are needed."""
    return DataError(
        f"{path} is {other_kind(path)}: no table of texts",
        possible="JSONL, JSON, CSV, TSV, parquet, Arrow, .xlsx, plain text; also compressed",
        fix="Save its rows as one of these.",
    )


def is_table_name(path: Path) -> bool:
    """Whether a file is named as a table: `x.jsonl`, `x.csv.gz`."""
    return extension(path) in EXTENSIONS


def looks_like_file(name: str) -> bool:
    """Whether a name can only be that of a file, be it there or not."""
    return is_table_name(Path(name)) or Path(name).suffix.lower() in (*COMPRESSED, *OTHER)


def _kind_of_text(path: Path, ending: str) -> FileKind:
    """JSON of some kind, by its first lines, or text."""
    lines = ((text, error) for _, text, error in read_lines(path) if error or text.strip())
    (first, broken), (second, also_broken) = next(lines, ("", "")), next(lines, ("", ""))
    named = ending in JSON_LINES or ending == ".json"
    if broken and ending in JSON_LINES:
        return "jsonl"
    start = _beginning(path)  # not of the line: one that is too long for a line may be a whole file of JSON
    if start == "{" and _is_json(first, dict):
        return "jsonl" if second or also_broken else "json"
    if start == "[" and not (ending in JSON_LINES and _is_json(second, dict)):
        # A text file may well begin with a bracket: there the whole line must be JSON, or nothing but the bracket.
        return "json" if named or _is_json(first, list) or first.strip() in ("[", "[{") else "text"
    if start == "{" and (named or first.strip() == "{"):
        return "jsonl" if _is_json(second, dict) else "json"
    return "jsonl" if named else "text"


def _beginning(path: Path) -> str:
    """The first character that is no white space."""
    encoding = detect_encoding(path)
    with open_text_bytes(path, encoding) as stream:
        head = stream.read(4096)
    return head.decode("utf-8" if encoding in WIDE else encoding, "replace").lstrip("\ufeff \t\r\n")[:1]


def _is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False


def _members(path: Path) -> list[str]:
    with open_input(path) as stream, zipfile.ZipFile(stream) as archive:
        return archive.namelist()
