"""What is derived from the store (vectors in FAISS, words in tantivy, metadata by columns), kept as new as it.

Each knows the last change that is in it; `refresh` replays what came after, so that a search sees every write that was
acknowledged before it began, by this or another process. Whoever calls a method here holds the index's lock, and has
a transaction of the store open, except where it says otherwise.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from acclimate.core.columns import Columns, Mask
from acclimate.core.filters import Filter
from acclimate.retrieval.index.local import checkpoints, dense, fields, lexical
from acclimate.retrieval.index.local.dense import Dense
from acclimate.retrieval.index.local.lexical import Lexical
from acclimate.retrieval.index.local.store import Store

FRESH_VECTORS = 512
"""Changed rows that are scored directly, before they are moved into FAISS."""
MOVED = 12
"""Rows moved at a time, so that a search never waits long."""
REPLAYED = 5000
"""Changes that are replayed without a look for a newer checkpoint."""
ATTEMPTS = 5
"""To read a checkpoint, where a writer puts newer ones in its place."""


class Derived:
    """The three of them, for one process."""

    def __init__(self, folder: Path, store: Store, lock: threading.RLock) -> None:
        """Read the newest checkpoints, as far as they are whole.

        Args:
            folder: of the index.
            store: the connection that searches read by.
            lock: the index's.
        """
        self.folder, self.store, self.lock = folder, store, lock
        self.dense = Dense(store.space.dim)
        self.lexical = Lexical(store.analyser)
        self.columns: Columns | None = None
        """Made for the first filter."""
        self.columns_seq = 0
        self.is_saving = False
        """FAISS's index is being written to disk: nothing may be moved into it."""
        self.tried = {dense.KIND: -1, lexical.KIND: -1}
        """The newest checkpoint of each kind that was looked at: one that is damaged is said once."""
        self.training: threading.Thread | None = None
        self.take_newer()

    @property
    def saved_seq(self) -> int:
        """The last change that is in both checkpoints; -1 where one is missing."""
        return min(self.dense.saved_seq, self.lexical.saved_seq)

    def take_newer(self) -> None:
        """Take checkpoints that are newer than those in memory, made by another process."""
        for _ in range(ATTEMPTS):
            try:
                if found := self._newer(dense.KIND, self.dense.saved_seq):
                    self.dense = Dense.read(found, self.store.space.dim)
                if found := self._newer(lexical.KIND, self.lexical.saved_seq):
                    self.lexical = Lexical(self.store.analyser, found)
                return
            except (OSError, RuntimeError, ValueError):
                continue  # A writer has just removed it for a newer one.

    def refresh(self) -> None:
        """Replay what the store has and this has not."""
        seq = self.store.seq
        columns_seq = seq if self.columns is None else self.columns_seq
        behind = seq - min(self.dense.seq, self.lexical.seq, columns_seq)
        if behind <= 0:
            return
        if behind > REPLAYED:
            self.take_newer()
        if seq - self.dense.seq > max(FRESH_VECTORS, self.store.documents // 2):
            self.dense = Dense.build(self.store)
        for change in self.store.changes(min(self.dense.seq, self.lexical.seq, columns_seq), seq):
            if change.seq > self.dense.seq:
                self.dense.update(change.row, change.vector)
                self._move()
            if change.seq > self.lexical.seq:
                self.lexical.update(change.row, change.text)
            if self.columns is not None and change.seq > columns_seq:
                fields.note(self.columns, change)
        self.dense.seq = self.lexical.seq = self.columns_seq = seq
        self._grow()

    def mask(self, filter: Filter) -> Mask:
        """Which rows pass a filter, by their numbers."""
        if self.columns is None:
            self.columns, self.columns_seq = fields.current(self.folder, self.store), self.store.seq
        return self.columns.mask(filter)

    def _newer(self, kind: str, saved: int) -> checkpoints.Checkpoint | None:
        if (there := checkpoints.latest(self.folder, kind)) <= max(saved, self.tried[kind]):
            return None
        self.tried[kind] = there
        return checkpoints.newest(self.folder, kind, self.store.identity, self.store.seq, saved)

    def _move(self) -> None:
        """Move what is fresh into FAISS, if it has become much."""
        if len(self.dense.stale) > FRESH_VECTORS and self.dense.faiss is not None and not self.is_saving:
            self.dense.absorb(len(self.dense.stale))

    def _grow(self) -> None:
        """Build the vectors' index anew where it has become too small: at once, or beside it if that takes long."""
        documents = self.store.documents
        if not self.dense.outgrown(documents):
            return
        if documents <= dense.SCAN_ROWS:
            self.dense = Dense.build(self.store)
        elif self.training is None or not self.training.is_alive():
            self.training = threading.Thread(target=self._train, name="acclimate-centroids", daemon=True)
            self.training.start()

    def _train(self) -> None:
        """Build the vectors' index anew, and put it in place of the present one. Takes the lock itself, at the end."""
        with contextlib.closing(Store(self.folder)) as store, store.transaction("DEFERRED"):
            built = Dense.build(store)
        with self.lock, self.store.transaction("DEFERRED"):
            for change in self.store.changes(built.seq, self.dense.seq):
                built.update(change.row, change.vector)
            built.seq = max(built.seq, self.dense.seq)
            self.dense = built
