"""LocalIndex: the store, and beside it what is derived from it, brought up to the store's last change by every search.

Who takes which lock: `writing` is held by the one thread that writes or makes checkpoints, `lock` by whoever uses or
changes what is derived, or reads through `store`. A writer takes `lock` only inside `writing`, and only for moments.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from acclimate.core.analyser import Analyser
from acclimate.core.columns import Columns, Mask
from acclimate.core.filters import Filter, Value
from acclimate.errors import StorageError
from acclimate.files import held
from acclimate.progress import say
from acclimate.retrieval.index.local import checkpoints, dense, lexical
from acclimate.retrieval.index.local.checkpoints import Checkpoint
from acclimate.retrieval.index.local.dense import Dense
from acclimate.retrieval.index.local.lexical import Lexical
from acclimate.retrieval.index.local.store import Store
from acclimate.retrieval.index.records import (
    Document,
    Hit,
    IndexInfo,
    Query,
    Stored,
    Vectors,
    check_rows,
    check_space,
    check_vectors,
    fused,
    metadata_of,
)
from acclimate.text_use import SpaceId

LOCK = "writer.lock"
FRESH_VECTORS = 4096
"""Changed rows that are scored directly, before they are moved into FAISS."""
MOVED = 128
"""Rows moved at a time, so that a search never waits long."""
LEXICAL_CHECKPOINT = 5000
"""Changes after which a writer makes a checkpoint of the words, or a twentieth of the documents, if that is more."""
DENSE_CHECKPOINT = 50_000
"""The same of the vectors, or half of the documents."""
ATTEMPTS = 5
"""To read a checkpoint, where a writer puts newer ones in its place."""
VERIFIED = 32
"""Documents that `verify` searches for."""


class LocalIndex:
    """An index in a folder; see `protocol.Index`. Many processes may search it, one may write."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Load what is derived from the store; `open` is how to get one."""
        self.folder, self.store = folder, store
        self.space = store.space
        self.lock, self.writing = threading.RLock(), threading.Lock()
        self.writer: Store | None = None
        self.held = contextlib.ExitStack()
        self.columns: Columns | None = None
        """Made for the first filter."""
        self.columns_seq = 0
        self.saving = False
        """FAISS's index is being written: nothing may be moved into it."""
        self.training: threading.Thread | None = None
        self._load()

    @staticmethod
    def open(folder: Path, space: SpaceId | None = None, analyser: Analyser | None = None) -> LocalIndex:
        """Open an index, or make one; `opening.open_index` says how and what may go wrong."""
        create = None if space is None else (space, analyser or Analyser())
        store = Store(folder, create=create)
        try:
            if space is not None:
                check_space(store.space, space, str(folder))
            index = LocalIndex(folder, store)
        except BaseException:
            store.close()
            raise
        if store.seq - min(index.dense.saved_seq, index.lexical.saved_seq) > max(
            DENSE_CHECKPOINT, store.documents // 2
        ):
            index._repair()
        return index

    def upsert(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write documents, in place of those that have the same ids: all of a call or none."""
        rows = check_rows(documents, vectors, self.space)
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
            check_vectors(np.asarray(query.vector)[None], self.space, ["the query"])
        with self.lock, self.store.transaction("DEFERRED"):
            self._refresh()
            allowed = None if query.filter is None else self._mask(query.filter)
            nearest = self._dense(query, allowed) if query.mode != "lexical" else {}
            wordiest = self._lexical(query, allowed) if query.mode != "dense" else {}
            found = fused(query, nearest, wordiest)
            stored = self.store.get(name for name, _ in found)
        return [Hit(stored[name].document, score) for name, score in found]

    def count(self, filter: Filter | None = None) -> int:
        """Return how many documents there are, or pass the filter."""
        with self.lock, self.store.transaction("DEFERRED"):
            if filter is None:
                return self.store.documents
            self._refresh()
            return int(np.count_nonzero(self._mask(filter)))

    def iterate(self, after: str | None = None) -> Iterator[Stored]:
        """Give all documents in the order of their ids, as they were when the first was asked for."""
        with contextlib.closing(Store(self.folder)) as store, store.transaction("DEFERRED"):
            yield from store.iterate(after or "")

    def info(self) -> IndexInfo:
        """Return what there is to say about it."""
        with self.lock, self.store.transaction("DEFERRED"):
            self._refresh()
            details = {
                "seq": self.store.seq,
                "dense": "scan" if self.dense.is_scan else "nothing" if self.dense.faiss is None else "cells",
                "checkpoints": {"dense": self.dense.saved_seq, "lexical": self.lexical.saved_seq},
                "bytes": sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()),
            }
            return IndexInfo("local", str(self.folder), self.store.documents, self.space, details)

    def verify(self) -> list[str]:
        """Return what is wrong, in words: the file's damage, rows that are not found; empty where all is well."""
        with self.lock:
            found = self.store.damage()
            with self.store.transaction("DEFERRED"):
                self._refresh()
                count, built = self.store.documents, self.dense.rows()
                rows = {row for row, _ in self.store.rows("metadata")}
                if built != rows:
                    found.append(f"{count:,} documents, {len(built & rows):,} of them in the vectors' index")
                if self.lexical.rows() != count:
                    found.append(f"{count:,} documents, {self.lexical.rows():,} in the words' index")
                for row in sorted(rows)[:: max(1, count // VERIFIED)]:
                    _, vectors = self.store.vectors_of([row])
                    scored = self._scored(vectors[0], 1, None)
                    if not scored or max(scored.values()) < 0.99:
                        found.append(f"document {self.store.ids_of([row])[row]!r} is not found by its own vector")
        return found

    def rebuild(self) -> None:
        """Make all that is derived anew from the documents."""
        with self.writing:
            self._as_writer()
            with self.lock:
                self.dense, self.lexical = Dense(self.space.dim), Lexical(self.store.analyser)
            self._save_words()
            self._save_vectors()

    def close(self) -> None:
        """Make checkpoints, if this process has written, and let go of the folder."""
        if self.training is not None:
            self.training.join()
        with self.writing:
            if self.writer is not None:
                self._save_words()
                self._save_vectors()
            self._let_go()
            with self.lock:
                self.store.close()

    def _load(self) -> None:
        """Read the newest checkpoints."""
        with self.lock, self.store.transaction("DEFERRED"):
            self.dense = Dense(self.space.dim)
            self.lexical = Lexical(self.store.analyser)
            self._take_newer()

    def _take_newer(self) -> None:
        """Take checkpoints that are newer than what is in memory, made by this or another process."""
        for _ in range(ATTEMPTS):
            try:
                if checkpoints.latest(self.folder, dense.KIND) > self.dense.saved_seq and (
                    found := self._newest(dense.KIND)
                ):
                    self.dense = Dense.read(found, self.space.dim)
                if checkpoints.latest(self.folder, lexical.KIND) > self.lexical.saved_seq and (
                    found := self._newest(lexical.KIND)
                ):
                    self.lexical = Lexical(self.store.analyser, found)
                return
            except (OSError, RuntimeError, ValueError):
                continue  # A writer has removed it for a newer one.

    def _newest(self, kind: str) -> Checkpoint | None:
        return checkpoints.newest(self.folder, kind, self.store.identity, self.store.seq)

    def _repair(self) -> None:
        """Make checkpoints of what other processes would have to catch up with, unless one of them is writing."""
        say(f"{self.folder}: the search index is made from the documents, which takes a while")
        with self.writing, contextlib.suppress(StorageError):
            self._as_writer()
            self._save_words()
            self._save_vectors()
        with self.writing:
            self._let_go()

    def _as_writer(self) -> Store:
        """The connection that writes; the first call makes this process the one that may."""
        if self.writer is None:
            self.held.enter_context(held(self.folder / LOCK, self.folder))
            self.writer = Store(self.folder)
            with self.lock, self.store.transaction("DEFERRED"):
                self._take_newer()
        return self.writer

    def _let_go(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        self.held.close()

    def _refresh(self) -> None:
        """Bring what is derived up to the last change that the store's transaction sees."""
        seq = self.store.seq
        known = min(self.dense.seq, self.lexical.seq)
        if seq <= known:
            return
        if seq - known > LEXICAL_CHECKPOINT:
            self._take_newer()
        if seq - self.dense.seq > max(FRESH_VECTORS, self.store.documents // 2):
            self.dense = Dense.build(self.store)
        for change in self.store.changes(min(self.dense.seq, self.lexical.seq, self.columns_seq), seq):
            if change.seq > self.dense.seq:
                self.dense.update(change.row, change.vector)
            if change.seq > self.lexical.seq:
                self.lexical.update(change.row, change.text)
            if self.columns is not None and change.seq > self.columns_seq:
                self.columns.set(change.row, _metadata(change.metadata))
        self.dense.seq = self.lexical.seq = self.columns_seq = seq
        self._grow()

    def _grow(self) -> None:
        """Build the vectors' index anew where it has become too small, or move what is fresh into it."""
        documents = self.store.documents
        if self.dense.outgrown(documents):
            if documents <= dense.SCAN_ROWS:
                self.dense = Dense.build(self.store)
                return
            if self.training is None or not self.training.is_alive():
                self.training = threading.Thread(target=self._train, name="acclimate-centroids", daemon=True)
                self.training.start()
        if len(self.dense.stale) > FRESH_VECTORS and not self.saving:
            self.dense.absorb(len(self.dense.stale))

    def _train(self) -> None:
        """Build the vectors' index anew beside the present one, and put it in its place."""
        with contextlib.closing(Store(self.folder)) as store, store.transaction("DEFERRED"):
            built = Dense.build(store)
        with self.lock, self.store.transaction("DEFERRED"):
            self._refresh()
            for change in self.store.changes(built.seq, self.dense.seq):
                built.update(change.row, change.vector)
            built.seq, self.dense = self.dense.seq, built

    def _maintain(self) -> None:
        """After a write: make the checkpoints that are due, and move rows into FAISS."""
        writer = self._as_writer()
        seq, documents = writer.seq, writer.documents
        if seq - self.lexical.saved_seq >= max(LEXICAL_CHECKPOINT, documents // 20):
            self._save_words()
        if seq - self.dense.saved_seq >= max(DENSE_CHECKPOINT, documents // 2):
            self._save_vectors()
        while len(self.dense.stale) > FRESH_VECTORS // 2 and self.dense.faiss is not None:
            with self.lock:
                self.dense.absorb(MOVED)

    def _save_words(self) -> None:
        store = self._as_writer()
        seq, saved = store.seq, self.lexical.saved_seq
        if seq > saved or self.lexical.folder is None:
            made = checkpoints.publish(
                self.folder,
                lexical.KIND,
                store.identity,
                seq,
                lambda folder: self.lexical.write(folder, store.changes(max(saved, 0), seq)),
            )
            with self.lock:
                self.lexical = Lexical(store.analyser, made)

    def _save_vectors(self) -> None:
        store = self._as_writer()
        if store.seq <= self.dense.saved_seq:
            return
        if self.dense.faiss is None or store.seq - self.dense.seq > store.documents // 2:
            with store.transaction("DEFERRED"):
                built = Dense.build(store)
            with self.lock:
                self.dense = built
        else:
            with self.lock, self.store.transaction("DEFERRED"):
                self._refresh()
            while self.dense.stale:
                with self.lock:
                    self.dense.absorb(MOVED)
        with self.lock:
            self.saving, saved = True, self.dense
        try:
            made = checkpoints.publish(self.folder, dense.KIND, store.identity, saved.seq, saved.write)
            saved.saved_seq = made.seq
        finally:
            self.saving = False

    def _mask(self, filter: Filter) -> Mask:
        if self.columns is None:
            self.columns = Columns()
            for row, metadata in self.store.rows("metadata"):
                self.columns.set(row, _metadata(metadata))
        return self.columns.mask(filter)

    def _dense(self, query: Query, allowed: Mask | None) -> dict[str, float]:
        assert query.vector is not None
        return self._named(self._scored(np.asarray(query.vector, np.float32), query.depth, allowed), query.depth)

    def _lexical(self, query: Query, allowed: Mask | None) -> dict[str, float]:
        assert query.text is not None
        return self._named(self.lexical.search(query.text, query.depth, allowed), query.depth)

    def _scored(self, vector: Vectors, top_k: int, allowed: Mask | None) -> dict[int, float]:
        """Row -> its exact score, of all that may be among the best."""
        built_in = self.store.vectors_of(self.dense.candidates(vector, top_k, allowed).tolist())
        newer = self.dense.newer(vector, top_k, allowed)
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


def _metadata(text: str | None) -> dict[str, Value] | None:
    return None if text is None else metadata_of(json.loads(text))
