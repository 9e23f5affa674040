"""A source (a file, a folder, a dataset on the hub) -> `RawData`. The one place that knows what a source can be."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acclimate.configs import PrepareConfig
from acclimate.counting import counted
from acclimate.data.beir import add_documents, beir_files, is_beir, read_beir, read_qa
from acclimate.data.columns import Form, recognise, records_of
from acclimate.data.dataset import FILES, Dataset, is_dataset, load_dataset
from acclimate.data.facts import by_reason
from acclimate.data.hub import HUB_ID, hub_rows, is_saved, load_hub, load_saved, saved_files
from acclimate.data.kinds import is_table_name, kind_of, looks_like_file
from acclimate.data.labels import settle_labels
from acclimate.data.made import PAIRS_FILE, PASSAGES_FILE, is_made, made_files
from acclimate.data.names import SPLIT_NAMES
from acclimate.data.opening import plain_name
from acclimate.data.records import BadRowError, RawData, Record
from acclimate.data.tables import Row, Rows, check_columns, json_rows, notes_of, read_table
from acclimate.data.whole_json import given_splits, is_qa, items_of, load_json
from acclimate.errors import DataError
from acclimate.files import hash_file, hash_folder, open_input
from acclimate.types import Kind, Rejected, Split

SPLIT_STEM = re.compile(rf"({'|'.join(SPLIT_NAMES)})(-\d+-of-\d+)?", re.IGNORECASE)


def read_source(source: str, config: PrepareConfig) -> RawData:
    """Read everything that a source holds, whatever its form.

    Args:
        source: a file, a BEIR folder, a folder of split files (also in `pairs/` or `data/`), a folder that `prepare`
            or `pairs` wrote, or `owner/name[:configuration]` of a dataset on the hub.
        config: may name columns.

    Raises:
        DataError: it is missing, empty, of no known form, or holds no usable row.
    """
    path = Path(source)
    if is_hub_id(source):
        return _read_hub(source, config)
    if not path.is_dir():
        return _read_file(path, config)
    if is_dataset(path):
        return raw_data_of(load_dataset(path), source)
    if is_saved(path):
        return read_hub_splits(load_saved(path), source, config)
    if is_beir(path):
        return read_beir(path, config.min_chars)
    if is_made(path):
        raw = _read_file(path / PAIRS_FILE, config)
        add_documents(raw, path / PASSAGES_FILE)
        return raw
    files = split_files(path)
    tables = [(split, str(file), read_table(file, _inside(file, path), config.columns)) for split, file in files]
    raw = _read_tables(tables, frozenset(split for split, _ in files), config)
    raw.notes += [note for _, file in files for note in notes_of(file)]
    return raw


def _read_file(path: Path, config: PrepareConfig) -> RawData:
    """One file: a table, or what others put into one JSON value."""
    rows = None
    if kind_of(path) == "json":
        check_columns(path, config.columns)
        with contextlib.suppress(DataError):  # lines of objects after all: read_table knows
            value = load_json(path)
            if is_qa(value):
                return read_qa(value, path, config.min_chars)
            if splits := given_splits(value):
                given = [(SPLIT_NAMES[name.lower()], f"{path}: {name}", items) for name, items in splits.items()]
                parts = [(split, where, json_rows(items, f"{path.name} {split}")) for split, where, items in given]
                return _read_tables(parts, frozenset(split for split, _, _ in parts), config)
            rows = json_rows(items_of(value, path), path.name)
    raw = _read_tables([("train", str(path), rows or read_table(path, path.name, config.columns))], frozenset(), config)
    raw.notes += notes_of(path)
    return raw


CORPUS = "corpus"
"""Name of the further corpus among a source's hashes."""


def source_hashes(source: str, corpus: str | None) -> dict[str, str]:
    """Hash every file that `read_source` and the further corpus are read from: name -> sha256, or a hub dataset's
    fingerprint."""
    hashes: dict[str, str] = {}
    path = Path(source)
    if is_hub_id(source):
        hashes = {f"{source}:{name}": str(split._fingerprint) for name, split in load_hub(source).items()}
    else:
        for file in _source_files(path):
            with open_input(file):
                pass
            hashes[_inside(file, path) if path.is_dir() else file.name] = hash_file(file)
    if corpus is not None:
        with open_input(Path(corpus)):
            pass
        hashes[CORPUS] = hash_file(Path(corpus))
    return hashes


def source_hash(source: str) -> str:
    """Hash a whole source: a folder or a file; for a dataset on the hub its name stands in."""
    path = Path(source)
    if is_hub_id(source):
        return source
    if path.is_dir():
        return hash_folder(path)
    with open_input(path):
        return hash_file(path)


def is_hub_id(source: str) -> bool:
    """Whether a source can only be a dataset on the hub: no such path exists, and it looks like an id."""
    if Path(source).exists() or looks_like_file(source) or source.startswith((".", "/", "~")):
        return False
    return HUB_ID.fullmatch(source) is not None


def split_files(folder: Path) -> list[tuple[Split, Path]]:
    """Find files named after splits (`train.jsonl`, `test-00000-of-00002.parquet`), in the folder, `pairs/` or `data/`.

    Raises:
        DataError: there are none, or two for one split.
    """
    for directory in (folder, folder / "pairs", folder / "data"):
        listed = sorted(directory.iterdir()) if directory.is_dir() else []
        tables = [file for file in listed if is_table_name(file) and file.is_file()]
        named = [(file, match) for file in tables if (match := SPLIT_STEM.fullmatch(Path(plain_name(file)).stem))]
        by_split: dict[Split, list[tuple[Path, bool]]] = {}
        for file, match in named:
            by_split.setdefault(SPLIT_NAMES[match[1].lower()], []).append((file, match[2] is not None))
        for split, files in by_split.items():
            if len(files) > 1 and not all(shard for _, shard in files):
                names = ", ".join(file.name for file, _ in files)
                raise DataError(f"{directory}: more than one file for {split}: {names}", fix="Keep one of them.")
        if by_split:
            return [(split, file) for split, files in by_split.items() for file, _ in files]
    names = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
    raise DataError(
        f"{folder}: a folder of no known form; it holds {names}",
        possible="corpus.jsonl + queries.jsonl + qrels/ (BEIR); train/dev/test files, also in pairs/ or data/; what "
        "datasets' save_to_disk wrote",
        fix="If one of the files is the data, give that file.",
    )


def _source_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if is_dataset(path):
        return sorted(file for name in FILES for file in path.glob(name))
    if is_saved(path):
        return saved_files(path)
    if is_beir(path):
        return beir_files(path)
    if is_made(path):
        return made_files(path)
    return [file for _, file in split_files(path)]


def _inside(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _read_hub(name: str, config: PrepareConfig) -> RawData:
    return read_hub_splits(load_hub(name), name, config)


def read_hub_splits(loaded: dict[str, Any], name: str, config: PrepareConfig) -> RawData:
    """Read a loaded hub dataset: its splits are given ones, unless there is a single one.

    Args:
        loaded: split name -> `datasets.Dataset`.
        name: the dataset's id, for messages.
    """
    known = {SPLIT_NAMES[split]: split for split in loaded if split in SPLIT_NAMES}
    if len(loaded) == 1:
        only = next(iter(loaded))
        return _read_tables([("train", name, hub_rows(loaded[only], f"{name}/{only}"))], frozenset(), config)
    if not known:
        raise DataError(
            f"{name}: its splits are {', '.join(loaded)}",
            possible="train, dev (or validation), test; or a single split",
        )
    tables = [(split, f"{name}/{theirs}", hub_rows(loaded[theirs], theirs)) for split, theirs in known.items()]
    raw = _read_tables(tables, frozenset(known), config)
    if unused := sorted(set(loaded) - set(known.values())):
        raw.notes.append(f"splits of {name} that are not used: {', '.join(unused)}")
    return raw


@dataclass
class _Reading:
    """State while tables are read: the forms seen, and what came of the rows."""

    config: PrepareConfig
    forms: dict[frozenset[str], Form | str] = field(default_factory=dict)
    kind: Kind | None = None
    records: list[Record] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    prompts: Counter[str] = field(default_factory=Counter)

    def form_of(self, row: Row, where: str) -> Form:
        """The row's form, recognised once per set of names; the first row of all decides whether names are known."""
        names = frozenset(row.values)
        if names not in self.forms:
            try:
                form = recognise(list(row.values), f"{where} row {row.row}", self.config)
            except DataError as error:
                if self.kind is None:
                    raise
                self.forms[names] = f"unknown columns ({error.found.partition('; ')[2]})"
            else:
                if self.kind not in (None, form.kind):
                    raise DataError(
                        f"{where} row {row.row}: with its columns ({', '.join(row.values)}) this row is "
                        f"{form.kind} data, rows before it are {self.kind} data",
                        fix="Give labels to all rows or to none; a row has either a label or negatives.",
                    )
                self.kind = form.kind
                self.forms[names] = form
        known = self.forms[names]
        if isinstance(known, str):
            raise BadRowError(known)
        return known

    def take(self, rows: Rows, split: Split, where: str) -> None:
        """Turn the rows of one table into records and rejected rows."""
        before = len(self.records), len(self.rejected)
        for row in rows:
            if isinstance(row, Rejected):
                self.rejected.append(row)
                continue
            try:
                form = self.form_of(row, where)
                self.records += records_of(row, form, split, self.config.min_chars, self.prompts)
            except BadRowError as error:
                self.rejected.append(row.rejected(str(error)))
        if len(self.records) == before[0]:
            raise no_usable_row(where, self.rejected[before[1] :])


def no_usable_row(where: str, rejected: list[Rejected]) -> DataError:
    """The error for a file of which no row can be used."""
    if not rejected:
        return DataError(f"{where}: no row", fix="Give a file with at least one row (below the header, if it has one).")
    first = rejected[0]
    others = f": {by_reason(rejected)}" if len({row.reason for row in rejected}) > 1 else ""
    return DataError(
        f"{where}: no usable row; row {first.row}: {first.reason}",
        fix=f"Correct it ({counted(len(rejected), 'rows')} rejected in all{others}).",
    )


def _read_tables(tables: Iterable[tuple[Split, str, Rows]], given: frozenset[Split], config: PrepareConfig) -> RawData:
    reading = _Reading(config)
    for split, where, rows in tables:
        reading.take(rows, split, where)
    assert reading.kind is not None  # a table without a usable row has raised
    roles = _merged_roles(form for form in reading.forms.values() if isinstance(form, Form))
    raw = RawData(kind=reading.kind, records=reading.records, given=given, rejected=reading.rejected, columns=roles)
    if found := next(
        (form.label for form in reading.forms.values() if isinstance(form, Form) and form.label_found), None
    ):
        raw = settle_labels(raw, found)
    if reading.prompts:
        prompt, count = max(reading.prompts.items(), key=lambda item: (item[1], item[0]))
        raw.notes.append(
            f"prompts in {counted(reading.prompts.total(), 'rows')} are not used (the commonest, {count} times: "
            f"{prompt[:80]!r}); give --query-prompt if queries shall have one"
        )
    if roles.get("ignored"):
        raw.notes.append(f"columns not used: {', '.join(name or '(without a name)' for name in roles['ignored'])}")
    return _splits_from_column(raw)


def _merged_roles(forms: Iterator[Form]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for form in forms:
        for role, names in form.roles().items():
            known = merged.setdefault(role, [])
            known += [name for name in names if name not in known]
    return {role: names for role, names in merged.items() if names}


def _splits_from_column(raw: RawData) -> RawData:
    """If the column of `--split-by` holds nothing but names of splits, take them as given splits."""
    values = {record.group for record in raw.records if record.group is not None}
    if raw.given or not values or not all(value.strip().lower() in SPLIT_NAMES for value in values):
        return raw
    raw.records = [
        replace(record, split=SPLIT_NAMES[str(record.group).strip().lower()], group=None) for record in raw.records
    ]
    raw.given = frozenset(record.split for record in raw.records)
    return raw


def raw_data_of(dataset: Dataset, source: str) -> RawData:
    """A folder that `prepare` wrote, read as a source: every split is given, examples keep their negatives."""
    kind = dataset.kind
    if kind == "pairs":
        records = [
            Record(f"pairs/{split}.tsv", row, pair.sentence1, pair.sentence2, label=pair.label, split=split)
            for split, pairs in dataset.pairs.items()
            for row, pair in enumerate(pairs, start=2)
        ]
        low, high = dataset.info["label_range"]
        return RawData(kind=kind, records=records, given=frozenset(dataset.pairs), label_range=(low, high))
    examples = {(example.anchor, example.positive): example for example in dataset.examples}
    records = []
    for split, qrels in dataset.qrels.items():
        judged = ((query, document, grade) for query, grades in qrels.items() for document, grade in grades.items())
        for row, (query, document, grade) in enumerate(judged, start=2):
            record = Record(
                f"qrels/{split}.tsv",
                row,
                dataset.queries[query],
                dataset.corpus[document],
                grade=grade,
                split=split,
                anchor_id=query,
                positive_id=document,
                made_by=next(iter(dataset.info.get("made_by", {}).get(split, ())), ""),
            )
            example = examples.get((record.anchor, record.positive)) if split == "train" and grade > 0 else None
            if example is not None:
                record = replace(record, negatives=example.negatives, scores=example.scores)
            records.append(record)
    if not records:
        raise DataError(f"{source}: a dataset without a judged query", fix="Run prepare again.")
    return RawData(
        kind=kind,
        records=records,
        corpus=dataset.corpus,
        titles={dataset.corpus[key]: title for key, title in dataset.titles.items()},
        queries=dataset.queries,
        given=frozenset(dataset.qrels),
    )
