"""`Dataset`, and its folder: BEIR layout plus `examples.jsonl`, `rejected.jsonl` and `dataset.json`.

The one place that writes and reads this format.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from acclimate.data.held_out import HeldOut
from acclimate.errors import StorageError
from acclimate.files import MAX_LINE_BYTES, iter_jsonl, iter_lines, read_json, storage_errors, write_json, write_jsonl
from acclimate.types import SPLITS, Corpus, Example, Kind, LabelledPair, Qrels, Queries, Rejected, Split

HELD_OUT: tuple[Split, ...] = ("dev", "test")
"""The splits whose queries are never trained on."""

DATASET_FILE = "dataset.json"
EXAMPLES_FILE = "examples.jsonl"
REJECTED_FILE = "rejected.jsonl"
FILES = (DATASET_FILE, "corpus.jsonl", "queries.jsonl", EXAMPLES_FILE, "qrels/*.tsv", "pairs/*.tsv")
"""Patterns of the files a dataset is made of (the rejected rows are no part of it)."""
DAMAGED = "Run prepare again."
QUOTING = "csv"
"""How fields of the TSV files that hold a tab, a line end or a quote are written; in folders of older releases, whose
`dataset.json` does not say, nothing is quoted, and texts have neither tabs nor line ends."""


@dataclass
class Dataset:
    """What the later stages work on.

    Retrieval: `corpus`, `queries`, `qrels` by split, and one example per relevant (training query, document).
    Pairs: `pairs` by split, and the training pairs as examples whose label is the score; the rest is empty.
    """

    kind: Kind
    corpus: Corpus = field(default_factory=dict)
    queries: Queries = field(default_factory=dict)
    qrels: dict[Split, Qrels] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    pairs: dict[Split, list[LabelledPair]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    """What `dataset.json` holds: kind, counts, lengths, languages, warnings, splits, columns, label_range."""
    titles: dict[str, str] = field(default_factory=dict)
    """Id -> title, of the documents that have one; their text begins with it."""


def held_out(dataset: Dataset) -> HeldOut:
    """Collect what dev and test hold out: their queries, what is judged for these, and labelled pairs."""
    held = HeldOut()
    for split in HELD_OUT:
        for query, grades in dataset.qrels.get(split, {}).items():
            held.add_queries([dataset.queries[query]])
            held.add_judged(dataset.corpus[document] for document in grades if document in dataset.corpus)
        held.add_pairs((pair.sentence1, pair.sentence2) for pair in dataset.pairs.get(split, ()))
    return held


def is_dataset(folder: Path) -> bool:
    """Whether `write_dataset` wrote this folder."""
    return (folder / DATASET_FILE).is_file()


def has_test(folder: Path) -> bool:
    """Whether the dataset in a folder has a test split."""
    return any((folder / kind / "test.tsv").is_file() for kind in ("qrels", "pairs"))


def map_label(label: float, label_range: Iterable[float]) -> float:
    """Map a label within its range to a score in [0, 1]."""
    low, high = label_range
    return (label - low) / (high - low)


def write_dataset(folder: Path, dataset: Dataset, rejected: list[Rejected]) -> None:
    """Write a dataset into an existing folder.

    Raises:
        StorageError: no space, no permission.
    """
    if dataset.kind == "retrieval":
        write_jsonl(folder / "corpus.jsonl", _corpus_rows(dataset))
        write_jsonl(folder / "queries.jsonl", ({"_id": key, "text": text} for key, text in dataset.queries.items()))
        for split, qrels in dataset.qrels.items():
            judged = ((query, key, str(grade)) for query, grades in qrels.items() for key, grade in grades.items())
            _write_tsv(folder / "qrels" / f"{split}.tsv", ("query-id", "corpus-id", "score"), judged)
    for split, pairs in dataset.pairs.items():
        rows = ((pair.sentence1, pair.sentence2, _plain(pair.label)) for pair in pairs)
        _write_tsv(folder / "pairs" / f"{split}.tsv", ("sentence1", "sentence2", "label"), rows)
    write_examples(folder / EXAMPLES_FILE, dataset.examples)
    write_jsonl(folder / REJECTED_FILE, map(asdict, rejected))
    write_json(folder / DATASET_FILE, {"kind": dataset.kind, **dataset.info, "quoting": QUOTING})


def load_dataset(folder: Path) -> Dataset:
    """Read what `write_dataset` wrote.

    Raises:
        StorageError: a file is missing or damaged.
    """
    info = read_json(folder / DATASET_FILE)
    kind: Kind = info.get("kind", "")
    if kind not in ("retrieval", "pairs"):
        raise StorageError(f"{folder / DATASET_FILE}: unknown kind {kind!r}", possible="retrieval, pairs", fix=DAMAGED)
    quoting = info.pop("quoting", "")
    dataset = Dataset(kind, info=info)
    try:
        dataset.examples = [_example(row) for row in _rows(folder / EXAMPLES_FILE)]
        if kind == "retrieval":
            rows = list(_rows(folder / "corpus.jsonl"))
            dataset.titles = {row["_id"]: row["title"] for row in rows if "title" in row}
            dataset.corpus = {row["_id"]: " ".join((*_title(row), row["text"])) for row in rows}
            dataset.queries = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
        for split in SPLITS:
            if (path := folder / "qrels" / f"{split}.tsv").exists():
                qrels = dataset.qrels.setdefault(split, {})
                for query, document, grade in _read_tsv(path, quoting):
                    qrels.setdefault(query, {})[document] = int(grade)
            if (path := folder / "pairs" / f"{split}.tsv").exists():
                dataset.pairs[split] = [
                    LabelledPair(first, second, float(label), map_label(float(label), info["label_range"]))
                    for first, second, label in _read_tsv(path, quoting)
                ]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise StorageError(f"{folder} is damaged ({type(error).__name__}: {error})", fix=DAMAGED) from None
    return dataset


def read_examples(path: Path) -> list[Example]:
    """Read the training rows that `write_dataset` (or mining) wrote.

    Raises:
        StorageError: the file is missing or damaged.
    """
    try:
        return [_example(row) for row in _rows(path)]
    except (KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged ({type(error).__name__}: {error})", fix=DAMAGED) from None


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write training rows, as `read_examples` reads them."""
    write_jsonl(path, map(_example_row, examples))


def _corpus_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for key, text in dataset.corpus.items():
        title = dataset.titles.get(key)
        if title is None:
            yield {"_id": key, "text": text}
        else:
            yield {"_id": key, "title": title, "text": text.removeprefix(title + " ")}


def _title(row: dict[str, Any]) -> tuple[str, ...]:
    return (row["title"],) if "title" in row else ()


def _example_row(example: Example) -> dict[str, Any]:
    row: dict[str, Any] = {"anchor": example.anchor, "positive": example.positive}
    if example.negatives:
        row["negatives"] = list(example.negatives)
    if example.label is not None:
        row["label"] = example.label
    if example.scores is not None:
        row["scores"] = list(example.scores)
    return row


def _example(row: dict[str, Any]) -> Example:
    scores = row.get("scores")
    return Example(
        row["anchor"],
        row["positive"],
        tuple(row.get("negatives", ())),
        row.get("label"),
        None if scores is None else tuple(scores),
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise StorageError(f"{path} is missing", fix=DAMAGED)
    if path.stat().st_size == 0:
        return
    for line in iter_jsonl(path):
        if line.value is None:
            raise StorageError(f"{path} row {line.row} is damaged ({line.error})", fix=DAMAGED)
        yield line.value


def _plain(label: float) -> str:
    return str(int(label)) if label.is_integer() else repr(label)


def _write_tsv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """As pandas and Excel write and read it: what holds a tab, a line end or a quote is quoted."""
    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(chain([header], rows))


def _read_tsv(path: Path, quoting: str) -> Iterator[list[str]]:
    if quoting == QUOTING:
        csv.field_size_limit(MAX_LINE_BYTES)
        with path.open(encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream, delimiter="\t", strict=True)
            next(rows, None)
            yield from rows
        return
    for row, text, error in iter_lines(path):
        if error:
            raise StorageError(f"{path} row {row} is damaged ({error})", fix=DAMAGED)
        if row > 1:
            yield text.split("\t")
