"""The leak detector: reads a run's folder and names every test text that its training was told of.

It goes by the files alone and by its own reading of them: of the package it uses the definition of "the same text".
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acclimate.core.same_text import same_text_key
from acclimate.files import hash_folder
from acclimate.formats.trained_on import TRAINED_ON_FILE, read_trained_on

TEXTS = ("anchor", "positive", "query", "response")
"""Fields of training rows that hold one text."""
LISTS = ("negatives", "rejected_response", "pos", "neg")
"""Those that hold several."""
TRAINING_FILES = ("examples.jsonl", "rejected_response.jsonl", "query_pos_neg.jsonl")


@dataclass
class Tested:
    """What a data set is tested with, by key."""

    queries: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    pairs: dict[frozenset[str], str] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)
    """The same pairs, as they stand."""


def find_leaks(run: Path) -> list[str]:
    """Name every test text of a run that stands in a training row, as a negative, a retained text, or in dev.

    Args:
        run: a run's folder, with one data set or with several tasks. Each fold of a cross-validation (`folds/NUMBER`)
            is a run of its own, because what one fold is tested with the others are trained on.

    Returns:
        one line for each leak, none if all is well.
    """
    datasets = [path.parent for path in _files(run, "dataset.json") if ".work" not in path.parts]
    tested = Tested()
    for dataset in datasets:
        _read_split(dataset, "test", tested)
    found = list(_leaks_into_training(run, tested))
    for dataset in datasets:
        dev = Tested()
        _read_split(dataset, "dev", dev)
        found += [
            f"{dataset}: test query in dev: {tested.queries[key]!r}" for key in dev.queries if key in tested.queries
        ]
        found += [f"{dataset}: test pair in dev: {tested.pairs[key]!r}" for key in dev.pairs if key in tested.pairs]
    hashes = {hash_folder(dataset) for dataset in datasets}
    for path in _files(run, TRAINED_ON_FILE):
        inputs = json.loads((path.parent / "inputs.json").read_text())
        if not hashes <= set(inputs.values()):
            continue  # an older version, made when the data was split otherwise; `evaluate` leaves out what it has seen
        seen = read_trained_on(path.parent)
        found += [f"{path}: test query {text!r}" for text in tested.queries.values() if seen.has_text(text)]
        found += [f"{path}: test pair {pair!r}" for pair in tested.texts if seen.has_pair(*pair)]
    return found


def _files(run: Path, name: str) -> list[Path]:
    """The files of a name in a run, without those of its folds."""
    return [path for path in sorted(run.rglob(name)) if "folds" not in path.relative_to(run).parts]


def prepared_runs(folder: Path) -> list[Path]:
    """The runs below a folder whose data `prepare` wrote (a test may write data of its own, with leaks)."""
    datasets = [path.parent for path in folder.rglob("dataset.json") if (path.parent / "inputs.json").is_file()]
    tasks = [dataset.parent for dataset in datasets if dataset.name == "dataset"]
    return sorted({task.parent.parent if task.parent.name == "tasks" else task for task in tasks})


def _leaks_into_training(run: Path, tested: Tested) -> Iterator[str]:
    for path in (path for name in TRAINING_FILES for path in _files(run, name)):
        for number, row in enumerate(_rows(path), 1):
            single = [row[name] for name in TEXTS if name in row]
            several = [text for name in LISTS for text in row.get(name, ())]
            for text in (*single, *several):
                if same_text_key(text) in tested.queries:
                    yield f"{path} row {number}: test query {text!r}"
            # The data's own negatives are cleaned of what is judged for the test; mining may take it, unknowing.
            for text in several if path.parent.name == "dataset" else ():
                if same_text_key(text) in tested.answers:
                    yield f"{path} row {number}: negative {text!r} is judged for the test"
            if frozenset(map(same_text_key, single)) in tested.pairs:
                yield f"{path} row {number}: test pair {single!r}"


def _read_split(dataset: Path, split: str, tested: Tested) -> None:
    qrels, pairs = dataset / "qrels" / f"{split}.tsv", dataset / "pairs" / f"{split}.tsv"
    if qrels.exists():
        queries = {row["_id"]: row["text"] for row in _rows(dataset / "queries.jsonl")}
        corpus = {
            row["_id"]: " ".join(part for part in (row.get("title"), row["text"]) if part)
            for row in _rows(dataset / "corpus.jsonl")
        }
        for query, document, _ in _table(qrels):
            tested.queries[same_text_key(queries[query])] = queries[query]
            tested.answers[same_text_key(corpus[document])] = corpus[document]
    if pairs.exists():
        for one, other, _ in _table(pairs):
            tested.pairs[frozenset((same_text_key(one), same_text_key(other)))] = f"{one} / {other}"
            tested.texts.append((one, other))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def _table(path: Path) -> Iterable[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        yield from rows
