"""Judgements: qrels files in BEIR's and TREC's forms, and what is done with them, row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acclimate.data.columns import check_text, number
from acclimate.data.kinds import kind_of
from acclimate.data.names import QRELS, SPLIT_NAMES
from acclimate.data.opening import extension, plain_name, read_lines
from acclimate.data.records import BadRowError, Record
from acclimate.data.tables import Row, Rows, read_table
from acclimate.errors import DataError
from acclimate.types import Rejected, Split

FOLDER = "qrels"
EXTENSIONS = (".tsv", ".txt", ".qrels", ".trec", ".csv", ".jsonl", ".json", ".parquet")
TREC_ITERATIONS = ("0", "Q0", "q0")
"""The second of TREC's four columns: query, iteration, document, relevance."""
NUMBER = re.compile(r"-?\d+(\.\d+)?")
NAMED_IDS = 5
"""So many ids of a kind are named in a message."""


@dataclass
class Judgements:
    """The texts that judgements are about, and the records that come of them.

    Attributes:
        queries: id -> text.
        corpus: the same of the documents.
        no_query: ids of queries that are there, but without a usable text.
        no_document: the same of documents.
        min_chars: training pairs with a shorter text are rejected.
    """

    queries: Mapping[str, str]
    corpus: Mapping[str, str]
    no_query: frozenset[str] = frozenset()
    no_document: frozenset[str] = frozenset()
    min_chars: int = 1
    records: list[Record] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    """"query" and "document" -> ids that judgements name, and that are nowhere."""

    def add(self, row: Row, ids: tuple[str, str], grade: Any, split: Split) -> None:
        """Turn one judgement into a record, or into a rejected row."""
        try:
            self.records.append(self._record(row, ids, grade, split))
        except BadRowError as error:
            self.rejected.append(Rejected(row.source, row.row, str(error), " ".join(ids)))

    def _record(self, row: Row, ids: tuple[str, str], grade: Any, split: Split) -> Record:
        query, document = ids
        if query in self.no_query or document in self.no_document:
            raise BadRowError("its query or document has no text")
        for identifier, known, noun in ((query, self.queries, "query"), (document, self.corpus, "document")):
            if identifier not in known:
                self.unknown.setdefault(noun, []).append(identifier)
                raise BadRowError(f"unknown {noun} id ({identifier[:60]!r})")
        value = number(grade, "score")
        if not value.is_integer():
            raise BadRowError(f"not a whole number (score: {value})")
        texts = self.queries[query], self.corpus[document]
        if split == "train":
            check_text(texts[0], "query", self.min_chars)
            check_text(texts[1], "document", self.min_chars)
        return Record(row.source, row.row, *texts, grade=int(value), split=split, anchor_id=query, positive_id=document)

    def notes(self) -> list[str]:
        """Say which ids the judgements name that are nowhere."""
        return [
            f"{len(ids):,} judgements name a {noun} that is not there: {listed(ids)}"
            for noun, ids in self.unknown.items()
        ]


def qrels_files(folder: Path) -> list[tuple[Split | None, Path]]:
    """The qrels of a BEIR folder by split: in `qrels/`, or beside the corpus as `qrels.tsv`, `qrels.test.txt`.

    Returns:
        files with their splits; one alone whose name says none has None: the splits are still to be made.

    Raises:
        DataError: there are none, or two for one split, or one is not named after a split.
    """
    inside = folder / FOLDER
    found = inside.iterdir() if inside.is_dir() else [*folder.glob("qrels*"), *folder.glob("*.qrels")]
    files = [file for file in sorted(set(found)) if file.is_file() and extension(file) in EXTENSIONS]
    by_split: dict[Split | None, Path] = {}
    for file in files:
        split = _split_of(file)
        if split is None and (len(files) > 1 or inside.is_dir()):
            raise DataError(
                f"{file}: not the name of a split", possible=", ".join(f"{name}.tsv" for name in SPLIT_NAMES)
            )
        if split in by_split:
            raise DataError(f"{file}: {split} is also in {by_split[split].name}", fix="Keep one of the two.")
        by_split[split] = file
    if not by_split:
        raise DataError(
            f"{folder}/qrels: no judgements",
            possible="train.tsv, dev.tsv (or validation.tsv), test.tsv",
            fix="Add them.",
        )
    order: tuple[Split | None, ...] = ("train", "dev", "test", None)
    return [(split, by_split[split]) for split in order if split in by_split]


def read_qrels(path: Path, source: str) -> Iterator[tuple[Row, tuple[str, str], Any] | Rejected]:
    """Read (row, (query id, document id), grade) of every judgement in a file.

    BEIR's three columns with a header or without, TREC's four without one, or any table with these columns.

    Raises:
        DataError: the file is missing, empty, or has other columns.
    """
    columns: dict[str, str] = {}
    for row in _without_header(path, source) or read_table(path, source):
        if isinstance(row, Rejected):
            yield row
            continue
        columns = columns or _columns(path, row.values)
        if any(row.values.get(name) is None for name in columns.values()):
            yield row.rejected("no query, document or grade")
            continue
        ids = str(row.values[columns["query"]]).strip(), str(row.values[columns["document"]]).strip()
        yield row, ids, row.values[columns["grade"]]


def _split_of(file: Path) -> Split | None:
    """The split that a part of a file's name says: `test.tsv`, `qrels.dev.small.tsv`."""
    parts = re.split(r"[._-]+", Path(plain_name(file)).stem.lower())
    return next((SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES), None)


def _without_header(path: Path, source: str) -> Rows | None:
    """The rows of a file whose first line is a judgement already; None where it is not."""
    if kind_of(path) not in ("text", "delimited"):
        return None
    first = next((text for _, text, error in read_lines(path) if not error and text.strip()), "")
    delimiter = next((mark for mark in ("\t", ",") if mark in first), None)
    fields = [value.strip() for value in first.split(delimiter)]
    if len(fields) == 4 and fields[1] in TREC_ITERATIONS and NUMBER.fullmatch(fields[3]):
        return _fields(path, source, delimiter, (0, 2, 3))
    if len(fields) == 3 and NUMBER.fullmatch(fields[2]):
        return _fields(path, source, delimiter, (0, 1, 2))
    return None


def _fields(path: Path, source: str, delimiter: str | None, places: tuple[int, int, int]) -> Rows:
    names = [possible[0] for possible in QRELS.values()]
    width = places[-1] + 1
    for number_, text, error in read_lines(path):
        values = [value.strip() for value in text.split(delimiter)]
        if error or (text.strip() and len(values) != width):
            reason = error or f"wrong number of columns ({len(values)}, expected {width})"
            yield Rejected(source, number_, reason, text[:200])
        elif text.strip():
            yield Row(source, number_, dict(zip(names, (values[place] for place in places), strict=True)))


def _columns(path: Path, values: Mapping[str, Any]) -> dict[str, str]:
    folded = {name.strip().casefold(): name for name in values}
    first = {role: next((name for name in names if name in folded), None) for role, names in QRELS.items()}
    columns = {role: folded[name] for role, name in first.items() if name is not None}
    if missing := [names[0] for role, names in QRELS.items() if role not in columns]:
        raise DataError(
            f"{path}: no column {missing[0]}; columns found: {', '.join(map(repr, values))}",
            possible="query-id, corpus-id, score (named in the first line, or in this order without one); TREC's four",
            fix="Add a header line.",
        )
    return columns


def listed(ids: Sequence[str]) -> str:
    """Name the first few of some ids."""
    distinct = list(dict.fromkeys(ids))
    return ", ".join(name[:60] for name in distinct[:NAMED_IDS]) + (", .." if len(distinct) > NAMED_IDS else "")
