"""Search by vector: FAISS over what was built in, and beside it the rows that changed since, scored directly.

FAISS holds vectors in 8 bits, in cells (an inverted file whose centroids an HNSW graph finds; "The Faiss library",
Douze et al. 2024): a single one up to `SCAN_ROWS` documents, which is scanned whole; beyond, the cells nearest to the
query are. Either way the best are candidates, which the index scores again from the store's float16 vectors. A changed
row is left out of FAISS's answer until `absorb` has moved it there. FAISS does not allow adding and searching at a
time: the index's lock sees to that.

Shapes: N rows, D dimensions, R row numbers (a mask over them is as long as the largest + 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
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
LEAST_ROWS = 1000
"""Fewer rows are scored directly, until a checkpoint is made of them."""
LEVELS = 127
"""FAISS's values are whole numbers from -127 to 127."""
LEAST_RANGE = 0.1
HEADROOM = 1.5
"""FAISS's range over the largest value seen when it was built; what lies beyond is cut off and scored again."""
CELLS = 4
"""Cells for each square root of the rows."""
SAMPLE_PER_CELL = 40
"""Vectors that k-means sees for each centroid; FAISS warns below 39."""
TRAINING_ROUNDS = 8
GROWTH = 4
"""How many times as many rows make the centroids, and FAISS's range, be made anew."""
PROBED_CELLS = 256
"""Searched without a filter: of a million MiniLM vectors' true first ten, 256 of 3,916 cells held 0.9906, 224 held
0.9892 (benchmarks/index.py)."""
SPARE = 16
"""Rows scored again beyond twice those asked for, so that of equal scores at the end the ids decide; for the order of
the first ten vectors the twice alone was enough."""
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
        cells = CELLS * int(rows**0.5) if rows > SCAN_ROWS else 1
        sample = store.sample(max(BLOCK, SAMPLE_PER_CELL * cells))
        scale = LEVELS / min(1.0, HEADROOM * float(np.abs(sample).max(initial=LEAST_RANGE)))
        centroids = np.zeros((1, dim), np.float32) if cells == 1 else _centroids(sample, cells)
        index = faiss.index_factory(dim, f"IVF{len(centroids)}_HNSW32,SQ8_direct_signed", faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False
        index.quantizer.add(centroids)
        index.is_trained = True
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        built = Dense(dim, index, scale, rows)
        built.seq = store.seq
        for numbers, vectors in store.vectors(BLOCK):
            built._add(numbers, vectors)
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
        return bool(self.faiss.nlist == 1)

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
            self._add(np.array(there, np.int64), np.array([self.fresh.pop(row) for row in there]))
        self.stale.difference_update(moved)
        self.matrix = None

    def candidates(self, vector: Vectors, top_k: int, allowed: Mask | None, *, threaded: bool = True) -> Rows:
        """Rows that may be among the best, of those built in.

        Args:
            vector: [D].
            top_k: how many of the best are wanted.
            allowed: [R], the rows that may be found; all if not given.
            threaded: share the cells of the query out to FAISS's threads; beside a lexical search, which needs a core
                as long, that is slower.
        """
        if self.faiss is None or not self.faiss.ntotal:
            return np.empty(0, np.int64)
        wanted = 2 * top_k + SPARE
        selector, share = None, 1.0
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            share = min(1.0, max(1, np.count_nonzero(allowed)) / self.faiss.ntotal)
        self.faiss.parallel_mode = int(threaded)
        stale = np.fromiter(self.stale, np.int64, len(self.stale))
        # Few of the best are stale as a rule; where many are, there are never more than all of them.
        for asked in (wanted, 4 * wanted, wanted + len(stale)):
            found = self._search(vector, min(asked, self.faiss.ntotal), selector, share)
            kept = found[~np.isin(found, stale)]
            if len(kept) >= 3 * wanted // 4 or len(found) < asked:
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
        best = np.argsort(-scores, kind="stable")[: 2 * top_k + SPARE]
        best = best[scores[best] > -np.inf]
        return rows[best], vectors[best]

    def _search(self, vector: Vectors, count: int, selector: Any, share: float) -> Rows:
        # FAISS compares whole numbers. Only the order counts, so the query is stretched by a factor of its own.
        query = np.rint(vector * (LEVELS / np.abs(vector).max()))[None]
        cells = self.faiss.nlist
        # The fewer pass, the farther away the best ones are: of a million MiniLM vectors, half of which passed, 300
        # cells held 0.995 of the true first ten; where a tenth passed, 700 held 0.999.
        probed = int(PROBED_CELLS / share**0.5)
        if 2 * probed < cells:
            effort = faiss.SearchParametersHNSW(efSearch=probed)
            options = faiss.SearchParametersIVF(nprobe=probed, sel=selector, quantizer_params=effort)
            found: Rows = self.faiss.search(query, count, params=options)[1][0]
        else:
            # Of so many cells a graph finds the nearest more slowly than all are searched, in any order.
            options = faiss.SearchParametersIVF(nprobe=cells, sel=selector)
            every, nearness = np.arange(cells), np.zeros(cells, np.float32)
            scores, found = np.empty(count, np.float32), np.empty(count, np.int64)
            pointers = [faiss.swig_ptr(array) for array in (query, every, nearness, scores, found)]
            self.faiss.search_preassigned_c(1, pointers[0], count, *pointers[1:], False, options)
        return found[found >= 0]

    def _add(self, rows: Rows, vectors: Vectors) -> None:
        self.faiss.add_with_ids(np.clip(np.rint(vectors * self.scale), -LEVELS, LEVELS), rows)


def _centroids(sample: Vectors, cells: int) -> Vectors:
    """So many unit vectors that lie where the sample does.

    k-means in two levels: of all vectors, then of each group's. One level takes many times as long, and of a million
    MiniLM vectors its cells held no more of the true first ten.
    """
    groups = _k_means(sample, int(cells**0.5))
    nearest = np.argmax(sample @ groups.T, axis=1)
    parts = [sample[nearest == group] for group in range(len(groups))]
    shares = np.diff(np.cumsum([0, *map(len, parts)]) * cells // len(sample))
    return np.concatenate([_k_means(part, int(share)) for part, share in zip(parts, shares, strict=True) if share])


def _k_means(sample: Vectors, count: int) -> Vectors:
    means = faiss.Kmeans(
        sample.shape[1], count, niter=TRAINING_ROUNDS, spherical=True, min_points_per_centroid=1, seed=1
    )
    means.train(sample)
    return np.asarray(means.centroids)
