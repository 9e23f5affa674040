"""`index`: texts of any form, or the run's own corpus, into an index; only what is new is encoded."""

from __future__ import annotations

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import cast

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.core.analyser import Analyser
from acclimate.core.batching import batched
from acclimate.data.dataset import Dataset
from acclimate.data.documents import Documents, SourceDocument
from acclimate.errors import DataError
from acclimate.evaluation.lexical import analyser_for
from acclimate.evaluation.through_index import Asked, choose_fusion, dev_queries
from acclimate.files import iter_lines
from acclimate.models.passages import Passages
from acclimate.models.text_encoder import TextEncoder
from acclimate.progress import progress, say
from acclimate.retrieval.index.feeding import Encode, Fed, Whole, cut, feed, remove
from acclimate.retrieval.index.of_run import (
    check_writable,
    index_for,
    index_place,
    query_model,
    read_fusion,
    write_fusion,
    write_rejected,
)
from acclimate.retrieval.index.pictures import IS_PICTURE, sha256_of
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Document, problem
from acclimate.retrieval.index.reports import FusionChoice, IndexReport
from acclimate.retrieval.vector_cache import cached_vectors
from acclimate.runs.opening import load_current, open_retrieval_dataset
from acclimate.runs.pictures import KeptPictures
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task, one_task
from acclimate.runs.versions import in_use
from acclimate.types import Rejected

LANGUAGE_SAMPLE = 300
"""Documents by which the language of an index is told."""
CUT_TOGETHER = 64
"""Documents that are cut into chunks at once: the tokenizer has threads."""
_LIKE_A_CHUNK = re.compile(r"#\d+$")


def index(run: Path, sources: Sequence[Path], delete: Path | None, config: RunConfig) -> IndexReport:
    """Write documents into the index of a run: new ones, changed ones, and not those that are there as they are.

    Several processes share the encoding. After an interruption, what was acknowledged is there, and the same call goes
    on.

    Args:
        run: its adapter, if there is one, else its model, gives the vectors.
        sources: files and folders (`data.documents`); if there are none and nothing is deleted, the run's own corpus.
        delete: a file of ids, one a line: these documents are removed, with their chunks, before anything is written.
        config: shared fields and `index`.

    Returns:
        see `IndexReport`.

    Raises:
        DataError: a source cannot be read, or holds no usable document.
        UsageError: the index holds vectors of another space; chunks that the model cannot read.
        StorageError: the index cannot be written; no dataset where the run's own corpus is wanted.
    """
    started = time.monotonic()
    task = one_task(run, config)
    place = index_place(task)
    processes.on_main(lambda: check_writable(task, place, sources))
    encoder = _encoder(run, task)
    own = None if sources or delete else open_retrieval_dataset(task.dataset)
    material = _Material(task, encoder, Documents(sources, config.index.text_field), own)
    analyser = None if own is None and not sources else material.analyser()  # a deletion makes no index
    found: tuple[Fed, int, int, FusionChoice | None] | None = None
    with index_for(place, encoder, run, analyser) if processes.is_main() else nullcontext() as opened:
        deleted = _delete(opened, delete, task) if opened is not None and delete is not None else 0
        fed = Fed()
        if own is not None or sources:
            with progress("index", material.count(), "documents") as advance:
                fed = feed(opened, material, material.encode(), advance)
        if opened is not None:
            changed = bool(fed.encoded or fed.removed)
            choice = None if own is None else _choose_fusion(opened, encoder, own, task, changed)
            found = fed, deleted, opened.count(), choice
    fed, deleted, count, choice = processes.from_main(cast(tuple[Fed, int, int, FusionChoice | None], found))
    if processes.is_main():
        write_rejected(task, material.rejected)
    report: IndexReport = {
        "place": place,
        "documents": count,
        "read": fed.documents,
        "encoded": fed.encoded,
        "relabelled": fed.relabelled,
        "unchanged": fed.unchanged,
        "removed": fed.removed,
        "deleted": deleted,
        "rejected": dict(Counter(row.reason for row in material.rejected).most_common()),
        "rejected_rows": str(task.folder.not_indexed) if material.rejected else None,
        "ignored": list(material.documents.ignored),
        "space": dataclasses.asdict(encoder.space),
        "timings": {"index_s": round(time.monotonic() - started, 3)},
    }
    if choice is not None:
        report["fusion"] = choice
    return report


def _encoder(run: Path, task: Task) -> TextEncoder:
    """The run's model; says which one it is where that was not trained here."""
    encoder = load_current(RunFolder(run).adapter, task.config.model, **task.config.loading)
    if not in_use(RunFolder(run).adapter).is_dir():
        say(f"index: {run} holds no adapter, so the vectors are those of {encoder.source.id}")
    return encoder


class _Material:
    """The documents of a call, cut where that is asked for, and how they become vectors; read once."""

    def __init__(self, task: Task, encoder: TextEncoder, documents: Documents, own: Dataset | None) -> None:
        self.task, self.encoder, self.documents, self.own = task, encoder, documents, own
        self.unfit: list[Rejected] = []
        settings = task.config.index
        tokens = settings.chunk_tokens
        self.passages = None if tokens is None else Passages(encoder, tokens, settings.chunk_overlap)
        source = iter(documents) if own is None else _own_documents(own)
        self.first = list(islice(source, LANGUAGE_SAMPLE)) if own is not None or documents.sources else []
        self.rest = source

    @property
    def rejected(self) -> list[Rejected]:
        """Rows that cannot be read, and documents that no index takes."""
        return self.documents.rejected + self.unfit

    def count(self) -> int:
        """About how many documents there are."""
        return len(self.own.corpus) if self.own is not None else self.documents.count()

    def analyser(self) -> Analyser:
        """How texts become words in an index that is made: as the run's evaluation has chosen, else by language."""
        return analyser_for(self.task.evaluation, (document.text for document in self.first))

    def encode(self) -> Encode:
        """Return how texts become vectors: by the encoder, or from what an evaluation has kept of the run's corpus."""
        if self.own is not None and self.passages is None:
            texts = list(self.own.corpus.values())
            kept = cached_vectors(self.encoder, texts, self.task.folder.cache)
            if kept is not None:
                say("index: the corpus's vectors are there already")
                rows = {text: row for row, text in enumerate(texts)}
                return lambda some: kept[[rows[text] for text in some]]
        return lambda some: self.encoder.encode(some, "document")

    def __iter__(self) -> Iterator[Whole]:
        """Give every document that an index takes."""
        for some in batched(chain(self.first, self.rest), CUT_TOGETHER):
            for document, made in zip(some, self._cut(some), strict=True):
                reason = next((found for part in made.parts if (found := problem(part))), None)
                if self.passages is not None and _LIKE_A_CHUNK.search(document.id):
                    reason = "its id ends like that of a chunk, with # and a number"
                if sha256_of(document.id) is not None:
                    reason = IS_PICTURE
                if reason is None:
                    yield made
                else:
                    self.unfit.append(Rejected(document.source, document.row, reason, document.text[:200]))

    def _cut(self, some: Sequence[SourceDocument]) -> Iterable[Whole]:
        records = [Document(document.id, document.text, document.metadata) for document in some]
        if self.passages is None:
            return [Whole(record.id, (record,)) for record in records]
        return map(cut, records, self.passages.cut([record.text for record in records]))


def _own_documents(own: Dataset) -> Iterator[SourceDocument]:
    for row, (name, text) in enumerate(own.corpus.items(), start=1):
        title = own.titles.get(name)
        yield SourceDocument(name, text, {"title": title} if title else {}, "corpus.jsonl", row)


def _delete(opened: Index, path: Path, task: Task) -> int:
    """Remove documents, and what is kept of pictures among them; return how many of the documents were there."""
    ids = list(_ids(path))
    deleted = remove(opened, ids)
    KeptPictures(task.folder.pictures).forget(filter(None, map(sha256_of, ids)))
    return deleted


def _ids(path: Path) -> Iterator[str]:
    """The ids of a file, one a line.

    Raises:
        DataError: it cannot be read, or holds none.
    """
    ids = []
    for row, text, error in iter_lines(path):
        if error:
            raise DataError(f"{path}, line {row}: {error}")
        if text.strip():
            ids.append(text.strip())
    if not ids:
        raise DataError(f"{path} holds no id", fix="Give a file with one id a line.")
    return iter(ids)


def _choose_fusion(opened: Index, encoder: TextEncoder, own: Dataset, task: Task, changed: bool) -> FusionChoice:
    """Choose on the run's dev split how rankings of its own corpus are fused, and record it; or keep the choice."""
    known, refuse = read_fusion(task, opened.space)[1], task.config.index.refuse
    if known is not None and not changed and known.get("refusal", {}).get("wanted") == refuse:
        return known
    queries, qrels = dev_queries(own)
    asked = Asked(queries, encoder.encode(list(queries.values()), "query"), query_model(encoder))
    choice = choose_fusion(opened, asked, qrels, refuse)
    write_fusion(task, choice)
    return choice
