"""Feedback into files and out of them: JSONL with everything, TREC qrels with the judgements."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from acclimate.core.same_text import text_id
from acclimate.data.qrels import read_qrels
from acclimate.errors import UsageError
from acclimate.feedback.labels import labels_of
from acclimate.feedback.records import NOT_RELEVANT, RELEVANT, Impression, Mark
from acclimate.feedback.store import FeedbackStore, Present
from acclimate.files import iter_jsonl, open_output, write_jsonl
from acclimate.types import Queries, Rejected

JSONL = ".jsonl"
QRELS = (".qrels", ".trec", ".tsv", ".txt")
BLOCK = 1000
"""Marks that are stored at once."""


class ImportReport(TypedDict):
    """What became of a file."""

    impressions: int
    marks: int
    repeated: int
    """Marks that were there already."""
    rejected: dict[str, int]
    """Reason -> rows that were not taken."""


@dataclass(slots=True)
class _Import:
    store: FeedbackStore
    present: Present | None
    source: str
    report: ImportReport = field(default_factory=lambda: ImportReport(impressions=0, marks=0, repeated=0, rejected={}))
    rejected: list[Rejected] = field(default_factory=list)
    _impressions: list[Impression] = field(default_factory=list)
    _marks: list[tuple[int, Mark]] = field(default_factory=list)

    def show(self, impression: Impression) -> None:
        """Take an impression; a block of them is stored at once."""
        self._impressions.append(impression)
        if len(self._impressions) >= BLOCK:
            self.flush()

    def add(self, row: int, mark: Mark) -> None:
        """Take a mark, likewise."""
        self._marks.append((row, mark))
        if len(self._marks) >= BLOCK:
            self.flush()

    def flush(self) -> None:
        """Store what has been taken: first the impressions, which the marks may be of."""
        self.report["impressions"] += self.store.add_impressions(self._impressions)
        self._impressions.clear()
        added = self.store.add_marks([mark for _, mark in self._marks], self.present)
        self.report["marks"] += added.stored
        self.report["repeated"] += added.repeated
        for one in added.refused:
            row, mark = self._marks[one.index]
            self.reject(Rejected(self.source, row, one.reason, f"{mark.query or mark.impression_id} {mark.id}"[:200]))
        self._marks.clear()

    def reject(self, row: Rejected) -> None:
        """Leave a row out, and say why."""
        self.rejected.append(row)

    def done(self) -> tuple[ImportReport, list[Rejected]]:
        """End the import."""
        self.flush()
        self.report["rejected"] = dict(Counter(row.reason for row in self.rejected).most_common())
        return self.report, self.rejected


def import_file(
    store: FeedbackStore, path: Path, *, queries: Queries, present: Present | None, user: str | None = None
) -> tuple[ImportReport, list[Rejected]]:
    """Read impressions and marks from JSONL, or judgements from TREC or BEIR qrels, into the store.

    Args:
        store: gets them.
        path: the file; its extension says which of the two.
        queries: id -> text, for qrels.
        present: finds the documents that are there.
        user: who has judged, for qrels.

    Returns:
        counts, and the rows that were not taken.

    Raises:
        UsageError: another extension.
        DataError: the file cannot be read.
    """
    work = _Import(store, present, str(path))
    if path.suffix == JSONL:
        _import_jsonl(work, path)
    elif path.suffix in QRELS:
        _import_qrels(work, path, queries, user)
    else:
        raise UsageError(f"{path}: unknown form of feedback", possible=", ".join((JSONL, *QRELS)))
    return work.done()


def _import_jsonl(work: _Import, path: Path) -> None:
    for line in iter_jsonl(path):
        if line.value is None:
            work.reject(Rejected(work.source, line.row, line.error, line.text))
            continue
        try:
            if "shown" in line.value:
                work.show(_impression(line.value))
            else:
                work.add(line.row, _mark(line.value))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no impression or mark ({type(error).__name__}: {error})"
            work.reject(Rejected(work.source, line.row, reason[:120], str(line.value)[:200]))


def _import_qrels(work: _Import, path: Path, queries: Queries, user: str | None) -> None:
    for found in read_qrels(path, work.source):
        if isinstance(found, Rejected):
            work.reject(found)
            continue
        row, (query, document), grade = found
        try:
            mark = RELEVANT if float(grade) > 0 else NOT_RELEVANT
        except (TypeError, ValueError):
            work.reject(row.rejected("the grade is no number"))
            continue
        if query not in queries:
            work.reject(row.rejected("unknown query id"))
        else:
            work.add(row.row, Mark(document, mark, queries[query], user=user))


def _impression(row: Mapping[str, Any]) -> Impression:
    if not all(isinstance(it, str) for it in (row["impression_id"], row["query"], *row["shown"])):
        raise TypeError("ids and queries are texts")
    epoch, pair = (None if row.get(name) is None else int(row[name]) for name in ("epoch", "pair"))
    return Impression(
        id=row["impression_id"],
        at=float(row["at"]),
        query=row["query"],
        shown=tuple(row["shown"]),
        adapter=str(row.get("adapter", "")),
        space=str(row.get("space", "")),
        epoch=epoch,
        pair=pair,
    )


def _mark(row: Mapping[str, Any]) -> Mark:
    names = ("id", "mark", "query", "impression_id", "user")
    if any(not isinstance(row.get(name, ""), str | None) for name in names):
        raise TypeError("ids, marks, queries and users are texts")
    at = row.get("at")
    return Mark(
        row["id"],
        row["mark"],
        row.get("query"),
        row.get("impression_id"),
        row.get("user"),
        None if at is None else float(at),
    )


def export_file(store: FeedbackStore, path: Path, queries: Queries) -> dict[str, int]:
    """Write all as JSONL, which can be imported; or the judgements as TREC qrels, on which users have agreed.

    Args:
        store: where it is.
        path: `.jsonl`; or an extension of qrels, beside which `PATH.queries.jsonl` has the texts of the queries.
        queries: id -> text: queries of these texts keep their ids.

    Raises:
        UsageError: another extension.
    """
    if path.suffix == JSONL:
        counts = {"impressions": 0, "marks": 0}
        with open_output(path) as stream:
            for kind, rows in (("impressions", _impression_rows(store)), ("marks", _mark_rows(store))):
                counts[kind] = _write_rows(stream, rows)
        return counts
    if path.suffix not in QRELS:
        raise UsageError(f"{path}: unknown form of feedback", possible=", ".join((JSONL, *QRELS)))
    ids = {text_id(text): identifier for identifier, text in queries.items()}
    labels = [label for label in labels_of(store.marks())[0] if label.explicit]
    names = {label.query: ids.get(text_id(label.query), f"feedback-{text_id(label.query):016x}") for label in labels}
    with open_output(path) as stream:
        for label in labels:
            stream.write(f"{names[label.query]}\t0\t{label.document}\t{int(label.relevant)}\n".encode())
    texts = path.with_name(f"{path.name}.queries.jsonl")
    write_jsonl(texts, ({"_id": name, "text": text} for text, name in names.items()))
    return {"judgements": len(labels), "queries": len(set(names.values()))}


def _write_rows(stream: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for row in rows:
        stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        count += 1
    return count


def _impression_rows(store: FeedbackStore) -> Iterator[dict[str, Any]]:
    for one in store.impressions():
        row = asdict(one)
        yield {"impression_id": row.pop("id"), **row, "propensities": one.propensities}


def _mark_rows(store: FeedbackStore) -> Iterator[dict[str, Any]]:
    for one in store.marks():
        row = {"id": one.document, "mark": one.mark, "query": one.query, "user": one.user or None, "at": one.at}
        yield row if one.impression is None else row | {"impression_id": one.impression}
