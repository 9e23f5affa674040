"""Texts that have ids: BEIR folders (corpus, queries, qrels), LlamaIndex's JSON, and further corpora."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acclimate.counting import counted
from acclimate.data.columns import passage_text
from acclimate.data.kinds import EXTENSIONS
from acclimate.data.names import IDS, TEXTS
from acclimate.data.opening import COMPRESSED
from acclimate.data.qrels import FOLDER, Judgements, listed, qrels_files, read_qrels
from acclimate.data.records import BadRowError, RawData, folded, normalise
from acclimate.data.tables import Row, is_plain, notes_of, read_table, rows_by_line
from acclimate.errors import DataError
from acclimate.types import Rejected, Split

CORPUS, QUERIES = "corpus", "queries"


def is_beir(folder: Path) -> bool:
    """Whether a folder is meant as a BEIR folder."""
    if (folder / "corpus.jsonl").exists() or (folder / FOLDER).is_dir():
        return True
    return _file(folder, CORPUS).exists() and _file(folder, QUERIES).exists()


def beir_files(folder: Path) -> list[Path]:
    """Every file that `read_beir` reads."""
    return [_file(folder, CORPUS), _file(folder, QUERIES), *(file for _, file in qrels_files(folder))]


def read_beir(folder: Path, min_chars: int) -> RawData:
    """Read a BEIR folder. Its ids, its corpus and its dev and test judgements stay as they are.

    Args:
        folder: holds `corpus` (`_id, text, title?`), `queries` (`_id, text`), each JSONL or another table, compressed
            or not, and `qrels/`.
        min_chars: training pairs with a shorter text are rejected (documents stay in the corpus all the same).

    Raises:
        DataError: a part is missing, or a file of judgements has none that can be used.
    """
    corpus, queries = TextsById(), TextsById()
    for texts, name in ((corpus, CORPUS), (queries, QUERIES)):
        texts.read(_file(folder, name))
    judged = Judgements(queries.texts, corpus.texts, frozenset(queries.unusable), frozenset(corpus.unusable), min_chars)
    files = qrels_files(folder)
    notes = [*corpus.notes, *queries.notes]
    for split, path in files:
        before = len(judged.records), len(judged.rejected)
        for row in read_qrels(path, path.relative_to(folder).as_posix()):
            if isinstance(row, Rejected):
                judged.rejected.append(row)
            else:
                judged.add(*row, split or "train")
        if len(judged.records) == before[0]:
            if len(judged.rejected) == before[1]:
                raise DataError(f"{path}: no row below the header", fix="Add judgements, or remove the file.")
            first = judged.rejected[before[1]]
            raise DataError(
                f"{path}: no usable judgement among {len(judged.rejected) - before[1]:,}; row {first.row}: "
                f"{first.reason}",
                fix="Its ids are those of corpus and queries.",
            )
        notes += notes_of(path)
    given: frozenset[Split] = frozenset(split for split, _ in files if split is not None)
    return _raw(corpus, queries, judged, given, notes)


def read_qa(value: Mapping[str, Any], path: Path, min_chars: int) -> RawData:
    """Read what LlamaIndex's `EmbeddingQAFinetuneDataset.save_json` writes (see `whole_json.is_qa`): texts with ids,
    and the ids of the documents that are relevant to each query, or their grades.

    Raises:
        DataError: no judgement can be used.
    """
    corpus, queries = TextsById(), TextsById()
    for texts, name in ((corpus, CORPUS), (queries, QUERIES)):
        for number, (key, text) in enumerate(value[name].items(), start=1):
            values = {"_id": key, **(text if isinstance(text, dict) else {"text": text})}
            texts.add(Row(f"{path.name} {name}", number, values))
    judged = Judgements(queries.texts, corpus.texts, frozenset(queries.unusable), frozenset(corpus.unusable), min_chars)
    for number, (query, found) in enumerate(value["relevant_docs"].items(), start=1):
        row = Row(f"{path.name} relevant_docs", number, {"query": query, "documents": found})
        if not isinstance(found, list | dict):
            judged.rejected.append(row.rejected(f"not a list of ids ({type(found).__name__})"))
            continue
        grades = found if isinstance(found, dict) else dict.fromkeys(map(str, found), 1)
        for document, grade in grades.items():
            judged.add(row, (query.strip(), document.strip()), grade, "train")
    if not judged.records:
        first = next(iter([*judged.rejected, *queries.rejected, *corpus.rejected]), None)
        why = f"; {first.source} row {first.row}: {first.reason}" if first else ""
        raise DataError(f"{path}: no usable judgement in relevant_docs{why}")
    return _raw(corpus, queries, judged, frozenset(), [*corpus.notes, *queries.notes])


def _raw(
    corpus: TextsById, queries: TextsById, judged: Judgements, given: frozenset[Split], notes: list[str]
) -> RawData:
    return RawData(
        kind="retrieval",
        records=judged.records,
        corpus=corpus.texts,
        titles=corpus.titles,
        queries=queries.texts,
        given=given,
        rejected=[*corpus.rejected, *queries.rejected, *judged.rejected],
        notes=[*notes, *judged.notes()],
    )


def _file(folder: Path, name: str) -> Path:
    """The file of a name, whatever its form; JSONL, and not compressed, before others."""
    endings = [kind + packed for packed in ("", *COMPRESSED) for kind in EXTENSIONS]
    return next((file for ending in endings if (file := folder / (name + ending)).exists()), folder / f"{name}.jsonl")


@dataclass
class TextsById:
    """Texts with ids, row by row, and what was not usable of them."""

    texts: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    """Text of a document that begins with its title -> the title."""
    unusable: set[str] = field(default_factory=set)
    """Ids of rows without a usable text, which have none elsewhere."""
    rejected: list[Rejected] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    """Ids that come with a second text."""
    read_notes: list[str] = field(default_factory=list)

    def read(self, path: Path) -> None:
        """Read a whole table.

        Raises:
            DataError: it is missing, empty, or holds no usable row.
        """
        first_bad = len(self.rejected)
        for row in read_table(path, path.name):
            if isinstance(row, Rejected):
                self.rejected.append(row)
            else:
                self.add(row)
        if not self.texts:
            raise _no_usable(path, self.rejected[first_bad:])
        self.read_notes += notes_of(path)

    def add(self, row: Row) -> None:
        """Take one row; the first text of an id is its text."""
        identifier = None
        try:
            identifier = identifier_of(row)
            if identifier is None:
                raise BadRowError(f"no _id (columns found: {', '.join(row.values)})")
            text = text_of(row, self.titles)
            if folded(self.texts.get(identifier, text)) != folded(text):
                self.twice.append(identifier)
                raise BadRowError(f"its id has another text already ({identifier[:60]!r})")
        except BadRowError as error:
            self.rejected.append(row.rejected(str(error)))
            if identifier is not None and identifier not in self.texts:
                self.unusable.add(identifier)
        else:
            self.texts.setdefault(identifier, text)
            self.unusable.discard(identifier)

    @property
    def notes(self) -> list[str]:
        """What a user should know of them."""
        if not self.twice:
            return self.read_notes
        note = f"{counted(len(self.twice), 'second texts')} of an id not used: {listed(self.twice)}"
        return [*self.read_notes, note]


def _no_usable(path: Path, rejected: list[Rejected]) -> DataError:
    if not rejected:
        return DataError(f"{path}: no row", fix="Give a file with at least one row (below the header, if it has one).")
    first = rejected[0]
    return DataError(
        f"{path}: no usable row; row {first.row}: {first.reason}",
        possible=f"text (or contents), title?, and an id ({', '.join(IDS)})",
        fix=f"Correct it ({counted(len(rejected), 'rows')} rejected in all).",
    )


def identifier_of(row: Row) -> str | None:
    """A row's id, in whichever column it is; None without one.

    Raises:
        BadRowError: it is no Unicode text.
    """
    value = next((row.values[name] for name in IDS if row.values.get(name) not in (None, "")), None)
    if value is None:
        return None
    normalise(str(value))  # raises where it cannot be written
    return str(value).strip()


def text_of(row: Row, titles: dict[str, str]) -> str:
    """Join title and text by a space, as BEIR and MTEB do; `titles` gets the title, by that text.

    Raises:
        BadRowError: the row has no text.
    """
    text = passage_text(row.values, titles)
    if text is None:
        raise BadRowError(f"no text (columns found: {', '.join(map(str, row.values))})")
    if not text:
        raise BadRowError("empty (text)")
    return text


def add_documents(raw: RawData, path: Path) -> None:
    """Add further documents to the corpus: any table with `text`, and `title`, `_id` if there; or plain text, one a
    line.

    A document whose text is known already keeps its known id; one whose id has another text already (parts of a
    document often share its id) gets an id of its own.

    Raises:
        DataError: the file is missing, empty, or without a usable row.
    """
    known = set(map(folded, raw.corpus.values()))
    first_bad = len(raw.rejected)
    usable, twice = 0, 0
    rows = rows_by_line(path, path.name, TEXTS[0]) if is_plain(path) else read_table(path, path.name)
    for row in rows:
        if isinstance(row, Rejected):
            raw.rejected.append(row)
            continue
        try:
            text, identifier = text_of(row, raw.titles), identifier_of(row)
        except BadRowError as error:
            raw.rejected.append(row.rejected(str(error)))
            continue
        usable, key = usable + 1, folded(text)
        if key in known:
            raw.rejected.append(Rejected(row.source, row.row, "duplicate document", text[:200]))
        elif identifier is None or identifier in raw.corpus:
            twice += identifier is not None
            raw.unnamed.append(text)
        else:
            raw.corpus[identifier] = text
        known.add(key)
    if not usable:
        raise _no_usable(path, raw.rejected[first_bad:])
    if twice:
        raw.notes.append(f"{counted(twice, 'documents')} of {path.name} got a new id: another text has theirs")
    raw.notes += notes_of(path)
