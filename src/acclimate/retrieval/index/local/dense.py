"""Search by vector: FAISS over what was built in, and beside it the rows that changed since, scored directly.

Up to `SCAN_ROWS` documents FAISS scans all of them in 8 bits; beyond, it looks into the cells nearest to the query
(an inverted file whose centroids an HNSW graph finds; "The Faiss library", Douze et al. 2024). Either way the best are
candidates, which the index scores again from the store's float16 vectors. A changed row is left out of FAISS's answer
until `absorb` has moved it there. FAISS does not allow adding and searching at a time: the index's lock sees to that.

Shapes: N rows, D dimensions, R row numbers (a mask over them is as long as the largest + 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from acclimate.retrieval.index.local.checkpoints import Checkpoint
from acclimate.retrieval.index.local.store import Store
from acclimate.retrieval.index.records import Vectors

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

KIND = "dense"
FILE = "vectors.faiss"
SCAN_ROWS = 100_000
"""Documents that are scanned one by one; beyond, cells are searched."""
LEVELS = 127
LEAST_RANGE = 0.1
LEAST_ROWS = 1000
"""Fewer rows are scored directly, until a checkpoint is made of them."""
"""The scan's values are whole numbers from -127 to 127."""
HEADROOM = 1.5
"""The scan's range over the largest value seen when it was built; what lies beyond is cut off and scored again."""
SAMPLE_PER_CELL = 40
"""Vectors that k-means sees for each centroid; FAISS warns below 39."""
TRAINING_ROUNDS = 8
GROWTH = 4
"""How many times as many rows make the centroids, and the scan's range, be made anew."""
PROBED_CELLS = 192
"""They held 0.997 of the true first ten of 150,000 MiniLM vectors in 1,548 cells; 128 held 0.986."""
SELECTIVE = 0.1
"""A filter that lets less than this share pass is searched in all cells."""
CANDIDATES = 64
"""Rows scored again, at least; and at least three times as many as are asked for."""
BLOCK = 16_384


class Dense:
    """FAISS's index, and the rows that are newer than it."""

    def __init__(self, dim: int, faiss_index: Any | None = None, scale: float = 1.0, trained_rows: int = 0) -> None:
        """Hold what was built or read.

        Args:
            dim: D.
            faiss_index: None where nothing is built in yet.
            scale: by which the scan's vectors were multiplied before they were rounded: one for all.
            trained_rows: how many rows there were when scale or centroids were chosen.
        """
        self.dim = dim
        self.faiss: Any = faiss_index
        self.scale, self.trained_rows = scale, trained_rows
        self.fresh: dict[int, Vectors] = {}
        """Row -> its vector, of the changed rows that are there."""
        self.matrix: tuple[Rows, Vectors] | None = None
        """The same as arrays, made for a search."""
        self.stale: set[int] = set()
        """Rows whose vector in FAISS, if there is one, is not theirs any more."""
        self.seq = 0
        """The last change that is in here."""
        self.saved_seq = -1
        """The last change in the checkpoint that it was read from or written to."""

    @staticmethod
    def build(store: Store) -> Dense:
        """Build it from all vectors of a store, within a transaction of which it sees one state."""
        rows, dim = store.documents, store.space.dim
        cells = 4 * int(rows**0.5)
        sample = _sample(store, max(BLOCK, SAMPLE_PER_CELL * cells if rows > SCAN_ROWS else 0))
        scale = LEVELS / min(1.0, HEADROOM * float(np.abs(sample).max(initial=LEAST_RANGE)))
        if rows > SCAN_ROWS:
            index = faiss.index_factory(dim, f"IVF{cells}_HNSW32,SQ8", faiss.METRIC_INNER_PRODUCT)
            index.cp.niter = TRAINING_ROUNDS
            index.cp.max_points_per_centroid = SAMPLE_PER_CELL
            index.train(sample)
            index.set_direct_map_type(faiss.DirectMap.Hashtable)
        else:
            scan = faiss.IndexScalarQuantizer(
                dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
            )
            index = faiss.IndexIDMap2(scan)
            scan.this.disown()
            index.own_fields = True
        built = Dense(dim, index, scale, rows)
        built.seq = store.seq
        for numbers, vectors in store.vectors(BLOCK):
            built.faiss.add_with_ids(built._scaled(vectors), numbers)
        return built

    @staticmethod
    def read(checkpoint: Checkpoint, dim: int) -> Dense:
        """Read what `write` wrote."""
        index = faiss.read_index(str(checkpoint.folder / FILE))
        found = Dense(dim, index, checkpoint.facts["scale"], checkpoint.facts["trained_rows"])
        found.seq = found.saved_seq = checkpoint.seq
        return found

    def write(self, folder: Path) -> Mapping[str, Any]:
        """Write what is built in; nothing may be fresh."""
        faiss.write_index(self.faiss, str(folder / FILE))
        return {"scale": self.scale, "trained_rows": self.trained_rows, "rows": int(self.faiss.ntotal)}

    @property
    def is_scan(self) -> bool:
        """Whether all rows are looked at."""
        return isinstance(self.faiss, faiss.IndexIDMap)

    @property
    def kind(self) -> str:
        """How rows are found, in words."""
        if self.faiss is None:
            return "all rows, one by one"
        return "all rows, in 8 bits" if self.is_scan else f"{self.faiss.nlist:,} cells"

    def outgrown(self, rows: int) -> bool:
        """Whether there are so many rows that it should be built anew."""
        return rows > max(LEAST_ROWS, GROWTH * self.trained_rows) or (rows > SCAN_ROWS and self.is_scan)

    def rows(self) -> set[int]:
        """All rows that can be found."""
        if self.faiss is None:
            built = np.empty(0, np.int64)
        elif self.is_scan:
            built = faiss.vector_to_array(self.faiss.id_map)
        else:
            lists = self.faiss.invlists
            sizes = [(cell, lists.list_size(cell)) for cell in range(self.faiss.nlist)]
            cells = [faiss.rev_swig_ptr(lists.get_ids(cell), size) for cell, size in sizes if size]
            built = np.concatenate([np.empty(0, np.int64), *cells])
        return set(built.tolist()) - self.stale | self.fresh.keys()

    def update(self, row: int, vector: Vectors | None) -> None:
        """Note that a row has another vector now, or (None) is gone."""
        self.stale.add(row)
        self.matrix = None
        if vector is None:
            self.fresh.pop(row, None)
        else:
            self.fresh[row] = vector

    def absorb(self, count: int) -> None:
        """Move so many changed rows into FAISS."""
        moved = list(itertools.islice(self.stale, count))
        there = [row for row in moved if row in self.fresh]
        self.faiss.remove_ids(np.array(moved, np.int64))
        if there:
            vectors = np.array([self.fresh.pop(row) for row in there])
            self.faiss.add_with_ids(self._scaled(vectors), np.array(there, np.int64))
        self.stale.difference_update(moved)
        self.matrix = None

    def candidates(self, vector: Vectors, top_k: int, allowed: Mask | None) -> Rows:
        """Rows that may be among the best, of those built in.

        Args:
            vector: [D].
            top_k: how many of the best are wanted.
            allowed: [R], the rows that may be found; all if not given.
        """
        if self.faiss is None or not self.faiss.ntotal:
            return np.empty(0, np.int64)
        wanted = max(CANDIDATES, 3 * top_k)
        selector, share = None, 1.0
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            share = min(1.0, np.count_nonzero(allowed) / self.faiss.ntotal)
        stale = np.fromiter(self.stale, np.int64, len(self.stale))
        for asked in (wanted, wanted + len(stale)):
            asked = min(asked, self.faiss.ntotal)
            found = self._search(vector, asked, selector, share)
            kept = found[~np.isin(found, stale)]
            if len(kept) >= min(wanted, asked) or len(found) < asked or not len(stale):
                break
        return kept[:wanted]

    def newer(self, vector: Vectors, top_k: int, allowed: Mask | None) -> tuple[Rows, Vectors]:
        """The best of the rows that changed since, and their vectors."""
        if self.matrix is None:
            vectors = np.array(list(self.fresh.values()), np.float32).reshape(-1, self.dim)
            self.matrix = np.array(list(self.fresh), np.int64), vectors
        rows, vectors = self.matrix
        scores = vectors @ vector
        if allowed is not None:
            scores[~allowed[rows]] = -np.inf
        best = np.argsort(-scores, kind="stable")[: max(CANDIDATES, 3 * top_k)]
        best = best[scores[best] > -np.inf]
        return rows[best], vectors[best]

    def _search(self, vector: Vectors, count: int, selector: Any, share: float) -> Rows:
        if self.is_scan:
            # Only the order counts here, so the query is stretched over the whole range by a factor of its own.
            query = np.rint(vector * (LEVELS / np.abs(vector).max()))
            options = faiss.SearchParameters(sel=selector)
        else:
            query, cells = vector, self.faiss.nlist
            probed = cells if share < SELECTIVE else min(cells, int(PROBED_CELLS / share))
            effort = faiss.SearchParametersHNSW(efSearch=probed)
            options = faiss.SearchParametersIVF(nprobe=probed, sel=selector, quantizer_params=effort)
        found: Rows = self.faiss.search(query[None], count, params=options)[1][0]
        return found[found >= 0]

    def _scaled(self, vectors: Vectors) -> Vectors:
        if not self.is_scan:
            return vectors
        scaled: Vectors = np.clip(np.rint(vectors * self.scale), -LEVELS, LEVELS)
        return scaled


def _sample(store: Store, count: int) -> Vectors:
    """Vectors evenly spread over the rows, about `count` of them."""
    step = max(1, store.documents // count)

    def parts() -> Iterator[Vectors]:
        for numbers, vectors in store.vectors(BLOCK):
            yield vectors[numbers % step == 0]

    return np.concatenate([np.empty((0, store.space.dim), np.float32), *parts()])
