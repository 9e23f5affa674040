"""Documents into an index, batch by batch: what is there unchanged is left alone, only new texts are encoded.

Several processes share the encoding: each reads all documents, and encodes every n-th batch; the first one alone has
the index open. A batch is encoded by itself, so that its vectors are the same however many processes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from acclimate import processes
from acclimate.core.batching import batched
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Document, Stored, Vectors

BATCH_DOCUMENTS = 512
"""Documents, or chunks, that are encoded and acknowledged together: what an interruption can cost."""
PROBED = 64
"""Further chunks of a document that are asked for at once."""

Encode: TypeAlias = Callable[[Sequence[str]], Vectors]
"""Texts -> unit vectors [N, D]."""


@dataclass(frozen=True, slots=True)
class Whole:
    """One document of a source: itself, or the chunks that it was cut into."""

    id: str
    parts: tuple[Document, ...]


@dataclass(slots=True)
class Fed:
    """What became of some documents; without `documents` all are counts of documents of the index, chunks maybe."""

    documents: int = 0
    unchanged: int = 0
    encoded: int = 0
    """Written with a new vector."""
    relabelled: int = 0
    """Written with the vector that was there: the text is the same, its metadata or place is not."""
    removed: int = 0
    """Chunks that their document does not have any more."""


@dataclass(slots=True)
class _Plan:
    """What shall be done with one batch."""

    encoded: list[Document] = field(default_factory=list)
    relabelled: list[Document] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)
    """Those that the relabelled documents have already."""
    unchanged: int = 0
    stale: list[str] = field(default_factory=list)


def chunk_id(document: str, number: int) -> str:
    """Return the id of a document's n-th chunk, from 0."""
    return f"{document}#{number}"


def feed(
    index: Index | None, documents: Iterable[Whole], encode: Encode, advance: Callable[[float], None] = lambda _: None
) -> Fed:
    """Write documents, in place of those with the same ids; every batch that is written is acknowledged.

    Args:
        index: None in all processes but the first.
        documents: the same in all processes, in the same order.
        encode: gives the vectors; called once for each batch that has new texts.
        advance: told of each batch how many documents it had.

    Returns:
        What was done; complete in the first process only.

    Raises:
        DataError: a document that no index takes.
        StorageError: the index cannot be written.
    """
    fed = Fed()
    for window in batched(_batches(documents), processes.count()):
        plans = [_plan(index, batch) for batch in window] if index is not None else []
        texts = processes.from_main([[document.text for document in plan.encoded] for plan in plans])
        own = texts[processes.index()] if processes.index() < len(texts) else []
        vectors = processes.gather(encode(own) if own else None)
        for batch, plan, found in zip(window, plans, vectors, strict=False):
            assert index is not None
            _carry_out(index, plan, found)
            fed.documents += len(batch)
            fed.unchanged += plan.unchanged
            fed.encoded += len(plan.encoded)
            fed.relabelled += len(plan.relabelled)
            fed.removed += len(plan.stale)
        advance(sum(map(len, window)))
    return fed


def remove(index: Index, ids: Iterable[str]) -> int:
    """Remove documents and their chunks; return how many of the documents were there."""
    found = 0
    for some in batched(ids, BATCH_DOCUMENTS):
        known = index.get([*some, *(chunk_id(name, 0) for name in some)])
        parts = {name: _parts(index, name, 0, known) for name in some}
        there = [name for name in some if _is_whole(name, known) or parts[name]]
        found += len(there)
        index.delete([name for name in there if name in known] + [part for name in there for part in parts[name]])
    return found


def _batches(documents: Iterable[Whole]) -> Iterator[list[Whole]]:
    """Whole documents together; one that is larger than a batch is a batch."""
    batch: list[Whole] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.parts)
        if size >= BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _plan(index: Index, batch: Sequence[Whole]) -> _Plan:
    """Compare a batch with what is there."""
    wanted = [part for document in batch for part in document.parts]
    beyond = [chunk_id(document.id, _chunks(document)) for document in batch]
    known = index.get([*(part.id for part in wanted), *beyond, *(document.id for document in batch)])
    plan = _Plan()
    for part in wanted:
        there = known.get(part.id)
        if there is None or there.document.text != part.text:
            plan.encoded.append(part)
        elif there.document == part:
            plan.unchanged += 1
        else:
            plan.relabelled.append(part)
            plan.vectors.append(there.vector)
    for document in batch:
        plan.stale += _parts(index, document.id, _chunks(document), known)
        if _chunks(document) and _is_whole(document.id, known):  # it was one piece before
            plan.stale.append(document.id)
    return plan


def _carry_out(index: Index, plan: _Plan, found: Vectors | None) -> None:
    documents, vectors = [*plan.encoded, *plan.relabelled], [*([] if found is None else found), *plan.vectors]
    if documents:
        index.upsert(documents, np.stack(vectors))
    if plan.stale:
        index.delete(plan.stale)


def _chunks(document: Whole) -> int:
    """How many chunks a document was cut into; 0 where it is one piece."""
    return sum(part.parent is not None for part in document.parts)


def _is_whole(name: str, known: dict[str, Stored]) -> bool:
    return name in known and known[name].document.parent is None


def _parts(index: Index, name: str, first: int, known: dict[str, Stored]) -> list[str]:
    """The ids of a document's chunks from number `first` on; `known` tells whether that one is there."""
    found: list[str] = []
    if chunk_id(name, first) not in known:
        return found
    while True:
        asked = [chunk_id(name, first + step) for step in range(PROBED)]
        there = index.get(asked)
        for part in asked:
            if part not in there or there[part].document.parent != name:
                return found
            found.append(part)
        first += PROBED


def cut(document: Document, spans: Sequence[tuple[int, int]]) -> Whole:
    """Make chunks of a document: parts that have its metadata, and remember where in it they are."""
    name, text = document.id, document.text
    parts = (
        replace(document, id=chunk_id(name, number), text=text[start:end], parent=name, start=start, end=end)
        for number, (start, end) in enumerate(spans)
    )
    return Whole(name, tuple(parts))
