"""BEIR folders (`corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`) and further corpora: texts that have ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.data.columns import check_text, number
from acclimate.data.records import BadRowError, RawData, Record, normalise
from acclimate.data.tables import Row, read_table
from acclimate.errors import DataError
from acclimate.types import Rejected, Split

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "dev": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "test": "test",
}
ID_NAMES = ("_id", "id")
QRELS_NAMES = {
    "query": ("query-id", "query_id"),
    "document": ("corpus-id", "corpus_id", "doc-id", "doc_id"),
    "grade": ("score", "relevance"),
}


def is_beir(folder: Path) -> bool:
    """Whether a folder is meant as a BEIR folder."""
    return (folder / "corpus.jsonl").exists() or (folder / "qrels").is_dir()


def qrels_files(folder: Path) -> list[tuple[Split, Path]]:
    """The qrels of a BEIR folder by split.

    Raises:
        DataError: there are none, or two for one split.
    """
    by_split: dict[Split, Path] = {}
    for file in sorted((folder / "qrels").glob("*.tsv")):
        split = SPLIT_NAMES.get(file.stem.lower())
        if split is None:
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
    return [(split, by_split[split]) for split in ("train", "dev", "test") if split in by_split]


def read_beir(folder: Path, min_chars: int) -> RawData:
    """Read a BEIR folder. Its ids, its corpus and its dev and test judgements stay as they are.

    Args:
        folder: holds `corpus.jsonl` (`_id, text, title?`), `queries.jsonl` (`_id, text`) and `qrels/`.
        min_chars: training pairs with a shorter text are rejected (documents stay in the corpus all the same).

    Raises:
        DataError: a part is missing, an id comes twice, or the qrels name an id that is not there.
    """
    rejected: list[Rejected] = []
    titles: dict[str, str] = {}
    corpus, no_document = read_texts_by_id(folder / "corpus.jsonl", rejected, titles)
    queries, no_query = read_texts_by_id(folder / "queries.jsonl", rejected, {})
    records: list[Record] = []
    files = qrels_files(folder)
    for split, path in files:
        source = f"qrels/{path.name}"
        columns: dict[str, str] = {}
        count = len(records) + len(rejected)
        for row in read_table(path, source):
            if isinstance(row, Rejected):
                rejected.append(row)
                continue
            columns = columns or _qrels_columns(path, row.values)
            query, document = str(row.values[columns["query"]]).strip(), str(row.values[columns["document"]]).strip()
            if query in no_query or document in no_document:
                rejected.append(Rejected(source, row.row, "its query or document has no text", f"{query} {document}"))
                continue
            _check_known(query, queries, "query", f"{path} row {row.row}", "queries.jsonl")
            _check_known(document, corpus, "document", f"{path} row {row.row}", "corpus.jsonl")
            try:
                records.append(
                    _judgement(row, columns["grade"], (query, document), (queries, corpus), split, min_chars)
                )
            except BadRowError as error:
                rejected.append(Rejected(source, row.row, str(error), f"{query} {document}"))
        if len(records) + len(rejected) == count:
            raise DataError(f"{path}: no row below the header", fix="Add judgements, or remove the file.")
    if not records:
        first = rejected[0]
        raise DataError(f"{folder}: no usable judgement; {first.source} row {first.row}: {first.reason}")
    given = frozenset(split for split, _ in files)
    return RawData(
        kind="retrieval",
        records=records,
        corpus=corpus,
        titles=titles,
        queries=queries,
        given=given,
        rejected=rejected,
    )


def _judgement(
    row: Row,
    grade_column: str,
    ids: tuple[str, str],
    texts: tuple[Mapping[str, str], Mapping[str, str]],
    split: Split,
    min_chars: int,
) -> Record:
    grade = number(row.values[grade_column], grade_column)
    if not grade.is_integer():
        raise BadRowError(f"not a whole number (score: {grade})")
    query, document = texts[0][ids[0]], texts[1][ids[1]]
    if split == "train":
        check_text(query, "query", min_chars)
        check_text(document, "document", min_chars)
    return Record(
        row.source,
        row.row,
        query,
        document,
        grade=int(grade),
        split=split,
        anchor_id=ids[0],
        positive_id=ids[1],
    )


def _check_known(identifier: str, known: Mapping[str, str], noun: str, where: str, file: str) -> None:
    if identifier not in known:
        raise DataError(
            f"{where}: {noun} id {identifier!r} is not in {file}", fix=f"Add it to {file}, or remove the row."
        )


def _qrels_columns(path: Path, values: Mapping[str, Any]) -> dict[str, str]:
    folded = {name.strip().casefold(): name for name in values}
    columns = {role: folded[name] for role, possible in QRELS_NAMES.items() for name in possible if name in folded}
    if missing := [names[0] for role, names in QRELS_NAMES.items() if role not in columns]:
        raise DataError(
            f"{path}: no column {missing[0]}; columns found: {', '.join(map(repr, values))}",
            possible="query-id, corpus-id, score (named in the first line)",
            fix="Add a header line.",
        )
    return columns


def read_texts_by_id(path: Path, rejected: list[Rejected], titles: dict[str, str]) -> tuple[dict[str, str], set[str]]:
    """Read id -> text of every usable line, and the ids of lines whose text is not usable; titles go into `titles`."""
    texts: dict[str, str] = {}
    unusable: set[str] = set()
    first_bad = len(rejected)
    for row in read_table(path, path.name):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        identifier = _identifier(row)
        try:
            if identifier is None:
                raise BadRowError(f"no _id (columns found: {', '.join(row.values)})")
            text = text_of(row, titles)
        except BadRowError as error:
            rejected.append(Rejected(row.source, row.row, str(error), str(row.values)[:200]))
            if identifier is not None:
                unusable.add(identifier)
            continue
        if texts.get(identifier, text) != text:
            raise DataError(
                f"{path} row {row.row}: the id {identifier!r} came before with another text", fix="Rename one."
            )
        texts[identifier] = text
    if not texts:
        first = rejected[first_bad]
        raise DataError(f"{path}: no usable row; row {first.row}: {first.reason}")
    return texts, unusable - set(texts)


def _identifier(row: Row) -> str | None:
    value = next((row.values[name] for name in ID_NAMES if row.values.get(name) is not None), None)
    return None if value is None else str(value).strip()


def text_of(row: Row, titles: dict[str, str]) -> str:
    """Join title and text by a space, as BEIR and MTEB do; `titles` gets the title, by that text."""
    parts = [row.values.get("title"), row.values.get("text")]
    if not isinstance(parts[1], str):
        raise BadRowError(f"no text (columns found: {', '.join(row.values)})")
    text = normalise(" ".join(part for part in parts if isinstance(part, str)))
    if not text:
        raise BadRowError("empty (text)")
    title = normalise(parts[0]) if isinstance(parts[0], str) else ""
    if title and text.startswith(title + " "):
        titles[text] = title
    return text


def add_documents(raw: RawData, path: Path) -> None:
    """Add further documents to the corpus: JSONL (or any table) with `text`, and `title`, `_id` if there.

    A document whose text is known already keeps its known id.

    Raises:
        DataError: the file is missing, empty, or without a usable row; an id is taken by another text.
    """
    known = set(raw.corpus.values())
    first_bad = len(raw.rejected)
    usable = 0
    for row in read_table(path, path.name):
        if isinstance(row, Rejected):
            raw.rejected.append(row)
            continue
        try:
            text = text_of(row, raw.titles)
        except BadRowError as error:
            raw.rejected.append(Rejected(row.source, row.row, str(error), str(row.values)[:200]))
            continue
        usable += 1
        identifier = _identifier(row)
        if identifier is not None and raw.corpus.get(identifier, text) != text:
            raise DataError(
                f"{path} row {row.row}: the id {identifier!r} is taken by another document",
                fix="Rename it, or leave the ids out.",
            )
        if text in known:
            raw.rejected.append(Rejected(row.source, row.row, "duplicate document", text[:200]))
        elif identifier is None:
            raw.unnamed.append(text)
        else:
            raw.corpus[identifier] = text
        known.add(text)
    if not usable:
        first = raw.rejected[first_bad]
        raise DataError(f"{path}: no usable row; row {first.row}: {first.reason}", possible="text, _id?, title?")
