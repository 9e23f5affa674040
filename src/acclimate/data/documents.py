"""Documents to search: texts with ids and metadata, from tables, BEIR folders, prepared data, and folders of files."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acclimate.core.filters import Scalar, Value
from acclimate.counting import counted
from acclimate.data.beir import is_beir
from acclimate.data.columns import passage_text
from acclimate.data.document_files import READERS, read_file
from acclimate.data.hub import hub_rows, is_saved, load_hub, load_saved
from acclimate.data.kinds import DELIMITERS, EXTENSIONS, kind_of
from acclimate.data.names import IDS, TEXTS, TITLE
from acclimate.data.opening import extension, open_bytes
from acclimate.data.readers import is_hub_id
from acclimate.data.records import BadRowError
from acclimate.data.tables import Row, Rows, read_table
from acclimate.errors import DataError
from acclimate.files import hash_file, hash_text, open_input
from acclimate.types import Rejected

TABLES = tuple(ending for ending in EXTENSIONS if ending not in READERS)
METADATA = "metadata"

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """One document of a source."""

    id: str
    """Its own id; of a file its path within the folder; of a row without an id a hash of its text."""
    text: str
    metadata: dict[str, Value]
    """The other columns, by name, and what is in an object named metadata: texts, numbers, true or false, or lists of
    them; of a file the title that it gives itself."""
    source: str
    """The file that it is in, by its name within the source."""
    row: int
    """Where in the file, from 1."""


@dataclass
class Documents:
    """The documents of some sources, read one after the other, and what could not be used.

    Attributes:
        sources: files, folders, and hub ids of data sets.
        text_field: the column of the text; if None, the first of `names.TEXTS`, with `title` before it.
        rejected: filled while the documents are read.
        ignored: columns that are no metadata (objects), likewise.
        distinct: of equal ids the first document counts; all ids are then remembered. Else memory does not grow with
            the sources.
    """

    sources: Sequence[Path]
    text_field: str | None = None
    rejected: list[Rejected] = field(default_factory=list)
    ignored: dict[str, None] = field(default_factory=dict)
    distinct: bool = True

    def __iter__(self) -> Iterator[SourceDocument]:
        """Read all of them.

        Raises:
            DataError: a source is missing, empty or of no known form, or holds no usable document.
            MissingExtraError: a form whose package is not installed.
        """
        self.rejected.clear()
        seen: dict[str, str] = {}
        for source in self.sources:
            count, first_bad = 0, len(self.rejected)
            for document in self._documents(source):
                text_hash = hash_text(document.text)[:32] if self.distinct else ""
                if not self.distinct or seen.setdefault(document.id, text_hash) == text_hash:
                    count += 1
                    yield document
                else:
                    reason = f"the id {document.id[:80]!r} came before with another text"
                    self.rejected.append(Rejected(document.source, document.row, reason, document.text[:200]))
            if not count:
                raise _nothing_usable(source, self.rejected[first_bad:])

    def count(self) -> int:
        """Count about how many documents there are, by looking only at lines and file names.

        Raises:
            DataError: a source is missing, empty or of no known form.
        """
        count = 0
        for source in self.sources:
            if (splits := _data_set(source)) is None:
                count += sum(_rows(path) for path, _ in _files(source))
            else:
                count += sum(map(len, splits.values()))
        return count

    def hash(self) -> str:
        """Hash all files of the sources, with their names; of a data set on the hub its splits' fingerprints.

        Raises:
            DataError: a source is missing, empty or of no known form.
        """
        parts = []
        for source in self.sources:
            if (splits := _data_set(source)) is None:
                parts += [f"{name}\0{hash_file(path)}" for path, name in _files(source)]
            else:
                parts += [f"{source}:{name}\0{rows._fingerprint}" for name, rows in splits.items()]
        return hash_text(*parts)

    def _documents(self, source: Path) -> Iterator[SourceDocument]:
        """The documents of one source."""
        if (splits := _data_set(source)) is None:
            for path, name in _files(source):
                yield from self._read(path, name)
        else:
            for split, rows in splits.items():
                name = f"{source.name}/{split}"
                yield from self._rows(hub_rows(rows, name), name, {})

    def _read(self, path: Path, name: str) -> Iterator[SourceDocument]:
        """The documents of one file."""
        if path.suffix.lower() in READERS:
            try:
                text, title = read_file(path)
            except BadRowError as error:
                self.rejected.append(Rejected(name, 1, str(error), ""))
            else:
                yield SourceDocument(name, text, {TITLE: title} if title else {}, name, 1)
            return
        yield from self._rows(read_table(path, name), name, _types(path, name))

    def _rows(self, rows: Rows, name: str, typed: Mapping[str, Callable[[str], Scalar]]) -> Iterator[SourceDocument]:
        """The documents of a table."""
        for row in rows:
            if isinstance(row, Rejected):
                self.rejected.append(row)
                continue
            try:
                yield self._document(row, typed)
            except BadRowError as error:
                self.rejected.append(Rejected(name, row.row, str(error), str(row.values)[:200]))

    def _document(self, row: Row, typed: Mapping[str, Callable[[str], Scalar]]) -> SourceDocument:
        """A row of a table as a document."""
        wanted = self.text_field or next((name for name in TEXTS if isinstance(row.values.get(name), str)), TEXTS[0])
        if not isinstance(row.values.get(wanted), str):
            raise BadRowError(f"no {wanted} (columns found: {', '.join(map(str, row.values))})")
        title = row.values.get(TITLE) if self.text_field is None else None
        text = passage_text({TITLE: title, TEXTS[0]: row.values[wanted]})
        if not text:
            raise BadRowError(f"empty ({wanted})")
        metadata: dict[str, Value] = {}
        id_name = next((name for name in IDS if row.values.get(name) not in (None, "")), None)
        identifier = "" if id_name is None else str(row.values[id_name]).strip()
        for name, value in row.values.items():
            if name == id_name:
                continue
            if name == METADATA and isinstance(value, dict):
                metadata |= {key: kept for key, item in value.items() if (kept := _metadata_value(item)) is not None}
            elif name != wanted and value is not None and value != "":
                if (kept := _metadata_value(typed[name](value) if name in typed else value)) is None:
                    self.ignored[name] = None
                else:
                    metadata[name] = kept
        return SourceDocument(identifier or hash_text(text)[:16], text, metadata, row.source, row.row)


def _data_set(source: Path) -> dict[str, Any] | None:
    """The splits of a data set on the hub, or in a folder of `save_to_disk`; None of any other source."""
    if is_hub_id(str(source)):
        return load_hub(str(source))
    return load_saved(source) if is_saved(source) else None


def _files(source: Path) -> list[tuple[Path, str]]:
    """The files of a source, and each one's name within it.

    Raises:
        DataError: it is missing, or of no known form.
    """
    possible = f"a table ({', '.join(TABLES)}), a file or a folder of {', '.join(READERS)}, a BEIR folder, a run"
    if not source.is_dir():
        with open_input(source):
            pass
        if source.suffix.lower() not in READERS and extension(source) not in TABLES:
            raise DataError(f"{source}: not a known form of documents", possible=possible)
        return [(source, source.name)]
    if is_beir(source):
        corpus = next(iter(sorted(source.glob("corpus.*"))), source / "corpus.jsonl")
        return [(corpus, corpus.name)]
    inside = [(path, path.relative_to(source).as_posix()) for path in sorted(source.rglob("*")) if path.is_file()]
    visible = [(path, name) for path, name in inside if not any(part.startswith(".") for part in name.split("/"))]
    documents = [(path, name) for path, name in visible if path.suffix.lower() in READERS]
    if found := documents or [(path, name) for path, name in visible if extension(path) in TABLES]:
        return found
    raise DataError(f"{source}: no document in it ({counted(len(inside), 'files')})", possible=possible)


def _rows(path: Path) -> int:
    if path.suffix.lower() in READERS:
        return 1
    if kind_of(path) == "parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return int(pyarrow.parquet.ParquetFile(path).metadata.num_rows)
        except (pyarrow.ArrowException, OSError):
            return 0  # reading it says why
    with open_bytes(path) as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")) or 1


def _types(path: Path, name: str) -> dict[str, Callable[[str], Scalar]]:
    """What the columns of a delimited file hold, where all of their values say so; other tables have types."""
    if extension(path) not in DELIMITERS:
        return {}
    possible: dict[str, list[tuple[Callable[[str], bool], Callable[[str], Scalar]]]] = {}
    for row in read_table(path, name):
        if isinstance(row, Row):
            for column, value in row.values.items():
                readings = possible.setdefault(column, list(_READINGS))
                if value and readings:
                    readings[:] = [reading for reading in readings if reading[0](value)]
    return {column: readings[0][1] for column, readings in possible.items() if readings}


_READINGS: tuple[tuple[Callable[[str], bool], Callable[[str], Scalar]], ...] = (
    (lambda value: _WHOLE.fullmatch(value) is not None, int),
    (lambda value: (_WHOLE.fullmatch(value) or _DECIMAL.fullmatch(value)) is not None, float),
    (lambda value: value.lower() in ("true", "false"), lambda value: value.lower() == "true"),
)
"""(whether a value can be read so, how it is read), the narrowest first. 007 stays a text: it is a name."""


def _metadata_value(value: Any) -> Value | None:
    """A column's value as metadata; None where it is none: an object, a list with objects in it, not a number."""
    if isinstance(value, list):
        items = tuple(item for item in map(_scalar, value) if item is not None)
        return items if items and len(items) == len(value) else None
    return _scalar(value)


def _scalar(value: Any) -> Scalar | None:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float)) else None


def _nothing_usable(source: Path, rejected: Sequence[Rejected]) -> DataError:
    if not rejected:
        return DataError(f"{source}: no document")
    first = rejected[0]
    return DataError(
        f"{source}: no usable document; {first.source} row {first.row}: {first.reason}",
        possible="_id?, text, title? and further columns as metadata; --text-field names another column",
    )
