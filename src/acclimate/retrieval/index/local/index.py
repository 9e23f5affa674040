"""LocalIndex: the store, and what is derived from it, behind one lock.

Who takes which lock: `writing` is held by the one thread that writes or makes checkpoints, `lock` by whoever uses or
changes what is derived, or reads through `store`. A writer takes `lock` only inside `writing`, and only for moments.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.core.analyser import Analyser
from acclimate.core.columns import Mask
from acclimate.core.filters import Filter
from acclimate.errors import StorageError
from acclimate.files import WORK, held
from acclimate.progress import say
from acclimate.retrieval.index import records
from acclimate.retrieval.index.local import checkpoints, dense, fields, lexical
from acclimate.retrieval.index.local.dense import Dense, Rows
from acclimate.retrieval.index.local.derived import FRESH_VECTORS, MOVED, Derived
from acclimate.retrieval.index.local.lexical import Lexical
from acclimate.retrieval.index.local.store import Store
from acclimate.retrieval.index.pictures import PICTURES
from acclimate.retrieval.index.records import Document, Hit, IndexInfo, Query, Stored, Vectors
from acclimate.text_use import SpaceId

LOCK = f"{WORK}/lock"
LEXICAL_CHECKPOINT = 5000
"""Changes after which a writer makes a checkpoint of the words, or a twentieth of the documents, if that is more."""
DENSE_CHECKPOINT = 50_000
"""The same of the vectors and the metadata, or half of the documents."""
TURN_S = 0.0005
"""How long, in a process that writes, a thread that is busy in Python keeps the others waiting for their turn. A search
waits for several turns, and Python's own 5 ms would be most of its time."""
VERIFIED = 32
"""Documents that `verify` searches for."""


class LocalIndex:
    """An index in a folder, as `protocol.Index` has it. Many processes may search it, one may write."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Load what is derived from the store; `open` is how to get one."""
        self.folder, self.store = folder, store
        self.space, self.analyser = store.space, store.analyser
        self.lock, self.writing = threading.RLock(), threading.Lock()
        self.writer: Store | None = None
        self.held = contextlib.ExitStack()
        self.beside = ThreadPoolExecutor(1, "acclimate-faiss")
        """Its thread is started by the first hybrid search."""
        with store.transaction("DEFERRED"):
            self.derived = Derived(folder, store, self.lock)
            behind, least = store.seq - self.derived.saved_seq, max(DENSE_CHECKPOINT, store.documents // 2)
            is_far_behind = behind > (least if self.derived.saved_seq >= 0 else dense.LEAST_ROWS)
        if is_far_behind:
            self._repair()

    @staticmethod
    def open(folder: Path, space: SpaceId | None = None, analyser: Analyser | None = None) -> LocalIndex:
        """Open an index, or make one; `opening.open_index` says how and what may go wrong."""
        store = Store(folder, create=None if space is None else (space, analyser or Analyser()))
        try:
            if space is not None:
                records.check_space(store.space, space, str(folder))
            return LocalIndex(folder, store)
        except BaseException:
            store.close()
            raise

    @staticmethod
    def sole_writer(folder: Path) -> AbstractContextManager[None]:
        """Keep all writers of an index out, other processes' too.

        Raises:
            StorageError: another one is at work.
        """
        return held(folder / LOCK, folder)

    def upsert(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write documents, in place of those that have the same ids: all of a call or none."""
        rows = records.check_rows(documents, vectors, self.space)
        if documents:
            with self.writing:
                self._as_writer().write(documents, rows)
                self._maintain()

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents; return how many of them were there."""
        with self.writing:
            gone = self._as_writer().delete(ids)
            self._maintain()
        return gone

    def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        """Return those of the documents that are there, by id."""
        with self.lock, self.store.transaction("DEFERRED"):
            return self.store.get(ids)

    def search(self, query: Query) -> list[Hit]:
        """Return the documents that answer a query, best first."""
        if query.vector is not None:
            records.searched_vector(query, self.space)
        vector = np.asarray([] if query.vector is None else query.vector, np.float32)
        with self.lock, self.store.transaction("DEFERRED"):
            self.derived.refresh()
            allowed = None if query.filter is None else self.derived.mask(query.filter)
            nearest, wordiest = {}, {}
            if query.mode == "hybrid":
                # FAISS needs nothing else that is here, so it works beside the lexical search.
                near = partial(self.derived.dense.candidates, vector, query.depth, allowed, threaded=False)
                nearby = self.beside.submit(near)
            if query.mode != "dense":
                wordiest = self._named(self.derived.lexical.search(query.text or "", query.depth, allowed), query.depth)
            if query.mode != "lexical":
                if query.mode == "hybrid":
                    rows = nearby.result()
                else:
                    rows = self.derived.dense.candidates(vector, query.depth, allowed)
                nearest = self._named(self._scored(vector, rows, query.depth, allowed), query.depth)
            found = records.fused(query, nearest, wordiest)
            stored = self.store.get(name for name, _ in found)
        return [Hit(stored[name].document, score) for name, score in found]

    def count(self, filter: Filter | None = None) -> int:
        """Return how many documents there are, or pass the filter."""
        with self.lock, self.store.transaction("DEFERRED"):
            if filter is None:
                return self.store.documents
            self.derived.refresh()
            return int(np.count_nonzero(self.derived.mask(filter)))

    def has_pictures(self) -> bool:
        """Whether it holds pictures; what an earlier release has made knows that once it is written to."""
        with self.lock, self.store.transaction("DEFERRED"):
            found = self.store.has_pictures()
        return self.count(PICTURES) > 0 if found is None else found

    def iterate(self, after: str | None = None) -> Iterator[Stored]:
        """Give all documents in the order of their ids, as they were when the first was asked for."""
        with contextlib.closing(Store(self.folder)) as store, store.transaction("DEFERRED"):
            yield from store.iterate(after or "")

    @property
    def state(self) -> str | None:
        """The store, and the number of its last change."""
        with self.lock, self.store.transaction("DEFERRED"):
            return f"{self.store.identity}:{self.store.seq}"

    def info(self) -> IndexInfo:
        """Return what there is to say about it."""
        with self.lock, self.store.transaction("DEFERRED"):
            self.derived.refresh()
            details = {
                "seq": self.store.seq,
                "dense": self.derived.dense.kind,
                "checkpoints": {"dense": self.derived.dense.saved_seq, "lexical": self.derived.lexical.saved_seq},
                "bytes": _bytes(self.folder),
            }
            return IndexInfo("local", str(self.folder), self.store.documents, self.space, details)

    def verify(self) -> list[str]:
        """Return what is wrong, in words: the file's damage, rows that are not found; empty where all is well."""
        with self.lock:
            found = self.store.damage()
            with self.store.transaction("DEFERRED"):
                self.derived.refresh()
                rows = self.store.rows()
                for what, there in (
                    ("vectors", len(self.derived.dense.rows() & rows)),
                    ("words", self.derived.lexical.rows()),
                ):
                    if there != len(rows):
                        found.append(f"of {len(rows):,} documents {there:,} are in the index of the {what}")
                for row in sorted(rows)[:: max(1, len(rows) // VERIFIED)]:
                    vector = self.store.vectors_of([row])[1][0]
                    scores = self._scored(vector, self.derived.dense.candidates(vector, 1, None), 1, None)
                    if max(scores.values(), default=0.0) < 1 - records.UNIT_TOLERANCE:
                        found.append(f"document {self.store.ids_of([row])[row]!r} is not found by its own vector")
        return found

    def rebuild(self) -> None:
        """Make all that is derived anew from the documents."""
        with self.writing:
            self._as_writer()
            with self.lock:
                self.derived.dense = Dense(self.space.dim)
                self.derived.lexical = Lexical(self.store.analyser)
            self._save()

    def close(self) -> None:
        """Make checkpoints, if this process has written, and let go of the folder."""
        if self.derived.training is not None:
            self.derived.training.join()
        with self.writing:
            if self.writer is not None:
                self._save()
            self._let_go()
            self.beside.shutdown()
            with self.lock:
                self.store.close()

    def _repair(self) -> None:
        """Make the checkpoints that others would have to do without, unless another process is writing."""
        say(f"{self.folder}: what searches need is made from the documents")
        with self.writing, contextlib.suppress(StorageError):
            self._as_writer()
            self._save()
        self._let_go()

    def _as_writer(self) -> Store:
        """The connection that writes; the first call makes this process the one that may."""
        if self.writer is None:
            self.held.enter_context(self.sole_writer(self.folder))
            self.writer = Store(self.folder)
            self.writer.index_pictures()
            self.held.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(min(sys.getswitchinterval(), TURN_S))
            for kind in (dense.KIND, lexical.KIND, fields.KIND):
                checkpoints.remove_beyond(self.folder, kind, self.writer.seq)
            with self.lock, self.store.transaction("DEFERRED"):
                self.derived.take_newer()
        return self.writer

    def _let_go(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        self.held.close()

    def _maintain(self) -> None:
        """After a write: make the checkpoints that are due, and move rows into FAISS."""
        writer, derived = self._as_writer(), self.derived
        seq, documents = writer.seq, writer.documents
        if seq - derived.lexical.saved_seq >= max(LEXICAL_CHECKPOINT, documents // 20):
            self._save_words()
        if seq - derived.dense.saved_seq >= max(DENSE_CHECKPOINT, documents // 2):
            self._save_vectors()
            self._save_fields()
        self._absorb(FRESH_VECTORS // 2)

    def _save(self) -> None:
        self._save_words()
        self._save_vectors()
        self._save_fields()

    def _save_words(self) -> None:
        store, words = self._as_writer(), self.derived.lexical
        seq = store.seq
        if seq > words.saved_seq:

            def fill(folder: Path) -> Mapping[str, Any]:
                with store.transaction("DEFERRED"):
                    return words.write(folder, store.changes(max(words.saved_seq, 0), seq, with_vectors=False))

            made = checkpoints.publish(self.folder, lexical.KIND, store.identity, seq, fill)
            with self.lock:
                self.derived.lexical = Lexical(store.analyser, made)

    def _save_vectors(self) -> None:
        store, derived = self._as_writer(), self.derived
        seq, documents = store.seq, store.documents
        if seq <= derived.dense.saved_seq:
            return
        if derived.dense.faiss is None or derived.dense.outgrown(documents) or seq - derived.dense.seq > documents // 2:
            with store.transaction("DEFERRED"):
                built = Dense.build(store)
            with self.lock:
                derived.dense = built
        else:
            with self.lock, self.store.transaction("DEFERRED"):
                derived.refresh()
        while not derived.is_saving:
            self._absorb(0)
            with self.lock:
                # Between the two a training may have put another one in its place, with rows still to be moved.
                saved = derived.dense
                derived.is_saving = not saved.stale
        try:
            checkpoints.publish(self.folder, dense.KIND, store.identity, saved.seq, saved.write)
            saved.saved_seq = saved.seq
        finally:
            derived.is_saving = False

    def _save_fields(self) -> None:
        store = self._as_writer()
        if (seq := store.seq) > checkpoints.latest(self.folder, fields.KIND):
            with store.transaction("DEFERRED"):
                columns = fields.current(self.folder, store)
            checkpoints.publish(
                self.folder, fields.KIND, store.identity, seq, lambda folder: fields.write(columns, folder)
            )

    def _absorb(self, left: int) -> None:
        """Move fresh rows into FAISS until so many are left, few at a time."""
        while self.derived.dense.faiss is not None and len(self.derived.dense.stale) > left:
            with self.lock:
                self.derived.dense.absorb(MOVED)
            time.sleep(TURN_S)  # A lock goes to whoever asks first: a waiting search has to wake up.

    def _scored(self, vector: Vectors, candidates: Rows, top_k: int, allowed: Mask | None) -> dict[int, float]:
        """Row -> its exact score, of all that may be among the best: FAISS's candidates, and what is newer."""
        built_in = self.store.vectors_of(candidates.tolist())
        newer = self.derived.dense.newer(vector, top_k, allowed)
        rows = np.concatenate([built_in[0], newer[0]])
        vectors = np.concatenate([built_in[1], newer[1]])
        # In float64, rounded: equal vectors have equal scores, wherever they come from.
        scores = (vectors.astype(np.float64) @ vector.astype(np.float64)).astype(np.float32)
        return dict(zip(rows.tolist(), scores.tolist(), strict=True))

    def _named(self, scores: dict[int, float], top_k: int) -> dict[str, float]:
        """The best scores, and those equal to the last of them, by the documents' ids."""
        least = min(heapq.nlargest(top_k, scores.values()), default=0.0)
        ids = self.store.ids_of([row for row, score in scores.items() if score >= least])
        return {identifier: scores[row] for row, identifier in ids.items()}


def _bytes(folder: Path) -> int:
    """Size of all files in a folder; what a writer removes meanwhile does not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(place, name).stat().st_size
    return total
