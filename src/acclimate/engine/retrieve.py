"""Exact retrieval: which documents have the highest inner product with a query.

Shapes: N queries, M documents, D dimensions, k results. Documents may be a memory map: they are read block by
block, and nothing of the size N x M or M x D is ever held, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate import processes
from acclimate.files import hash_text, storage_errors
from acclimate.types import Corpus, Queries, Role, Run

if TYPE_CHECKING:
    from acclimate.models.encoder import Encoder

Vectors: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)
BlockSearch: TypeAlias = Callable[[Vectors, Vectors, int], tuple[Vectors, Indices]]
"""(query_ND, block_MD, k <= M) -> (scores [N, k], row in the block [N, k]), best first, equal scores in any order."""

BLOCK_DOCUMENTS = 16384
"""Documents searched at a time: 24 MiB of 384 dimensions."""
BLOCK_TEXTS = 16384
"""Texts encoded between two writes to the cache."""
KEPT_MODELS = 6
"""Models, each role counted, whose vectors a cache keeps: base, teacher and adapted of a run. Older ones are gone."""
TIED_ROWS = 64
"""Queries whose every score within a block is looked at together: 4 MiB."""


def top_k(
    query_ND: Vectors,
    documents: Vectors,
    k: int,
    *,
    exclude: NDArray[np.bool_] | None = None,
    tie_order: Indices | None = None,
    block: int = BLOCK_DOCUMENTS,
    device: torch.device | str = "cpu",
) -> tuple[Vectors, Indices]:
    """The k documents of the highest inner product for every query, exactly, best first.

    Equal scores are ordered by `tie_order`, also where they straddle the last place, so that the result does not
    depend on the library that searches. On a CPU FAISS searches, elsewhere (and on macOS, where FAISS and torch
    fight over OpenMP) torch.

    Args:
        query_ND: float32.
        documents: float32 [M, D], an array or a memory map; copied only block by block, and only where needed.
        k: results per query; fewer where there are fewer documents.
        exclude: [M], True for documents that are not to be found.
        tie_order: [M], a permutation of 0..M-1: each document's place among equals; its index if not given.
        block: documents searched at a time.
        device: where to search.

    Returns:
        Scores float32 [N, k'] and document indices int64 [N, k'], k' = min(k, documents not excluded).
    """
    search = _torch_search(torch.device(device)) if _needs_torch(device) else _faiss_search
    scores = np.empty((len(query_ND), 0), np.float32)
    places = np.empty((len(query_ND), 0), np.int64)
    for rows in _blocks(len(documents), exclude, block):
        block_places = rows if tie_order is None else tie_order[rows]
        block_MD = _rows(documents, rows)
        found_scores, found = _search_block(search, query_ND, block_MD, block_places, k)
        scores = np.concatenate([scores, found_scores], axis=1)
        places = np.concatenate([places, block_places[found]], axis=1)
        best = np.lexsort((places, -scores), axis=1)[:, :k]
        scores, places = np.take_along_axis(scores, best, axis=1), np.take_along_axis(places, best, axis=1)
    return scores, places if tie_order is None else np.argsort(tie_order)[places]


def rank_vectors(
    query_ids: Sequence[str],
    query_ND: Vectors,
    doc_ids: Sequence[str],
    doc_MD: Vectors,
    k: int,
    *,
    device: torch.device | str = "cpu",
) -> Run:
    """Rank documents for every query by the inner product of their vectors; several processes share the queries.

    Returns:
        A `Run` of the best k: score descending, then document id ascending.
    """
    tie_order = np.empty(len(doc_ids), np.int64)
    tie_order[sorted(range(len(doc_ids)), key=doc_ids.__getitem__)] = np.arange(len(doc_ids))
    parts = processes.gather(top_k(_share(query_ND), doc_MD, k, tie_order=tie_order, device=device))
    scores, index = (_joined([part[which] for part in parts]) for which in (0, 1))
    return {
        query_id: {doc_ids[document]: score for document, score in zip(documents, row, strict=True)}
        for query_id, documents, row in zip(query_ids, index.tolist(), scores.tolist(), strict=True)
    }


def rank(
    encoder: Encoder,
    queries: Queries,
    corpus: Corpus,
    k: int,
    *,
    task: str | None = None,
    cache: Path | None = None,
    label: str = "",
) -> Run:
    """Rank the whole corpus for every query with one encoder.

    Args:
        encoder: gives the vectors of both sides, with its own prompts.
        queries: id -> text.
        corpus: id -> text.
        k: documents kept per query.
        task: the task whose prompts are used; the encoder's default if not given.
        cache: folder in which the documents' vectors are kept.
        label: whose vectors, for the progress bar; silent if empty.
    """
    query_ND = encode_corpus(
        encoder, list(queries.values()), None, label and f"{label} queries", role="query", task=task
    )
    doc_MD = encode_corpus(encoder, list(corpus.values()), cache, label and f"{label} documents", task=task)
    return rank_vectors(list(queries), query_ND, list(corpus), doc_MD, k, device=encoder.device)


def encode_corpus(
    encoder: Encoder,
    texts: Sequence[str],
    cache: Path | None,
    label: str = "",
    *,
    role: Role = "document",
    task: str | None = None,
) -> Vectors:
    """Unit vectors [M, D] of texts, kept on disk and memory-mapped where a cache is given.

    A cache keeps the vectors of the `KEPT_MODELS` that were used last: those of replaced adapters go. Several processes
    share the work: all have to call this, and all get all vectors.

    Args:
        encoder: gives the vectors; its fingerprint is part of the cache's key.
        texts: in the order of the rows.
        cache: folder of cached vectors; nothing is kept, and all is held in memory, if not given.
        label: what the progress bar says; empty is silent.
        role: whose prompt is used.
        task: the task whose prompt is used.

    Raises:
        StorageError: the cache cannot be written.
    """
    if cache is None or not texts:
        return _joined(processes.gather(encoder.encode(_share(texts), role, task, label=label)))
    path = vectors_path(encoder, texts, cache, role, task)
    with storage_errors(path):
        if not processes.on_first(lambda: _load_vectors(path, len(texts), encoder.dim) is not None):
            _write_vectors(path, encoder, texts, role, task, label)
        vectors: Vectors = np.load(path, mmap_mode="r")
        processes.on_first(lambda: _forget_unused(cache, path.parent))
    return vectors


def vectors_path(encoder: Encoder, texts: Sequence[str], cache: Path, role: Role, task: str | None = None) -> Path:
    """Where `encode_corpus` keeps the vectors: a folder per model and role, named by hashes of what they depend on."""
    return cache / encoder.role_fingerprint(role, task)[:32] / f"{hash_text(*texts)[:32]}.npy"


def _needs_torch(device: torch.device | str) -> bool:
    return torch.device(device).type != "cpu" or sys.platform == "darwin"


def _blocks(count: int, exclude: NDArray[np.bool_] | None, block: int) -> Iterator[Indices]:
    """Row numbers of each block of documents, without the excluded ones; empty blocks are left out."""
    for start in range(0, count, block):
        rows = np.arange(start, min(start + block, count))
        if exclude is not None:
            rows = rows[~exclude[rows]]
        if len(rows):
            yield rows


def _rows(documents: Vectors, rows: Indices) -> Vectors:
    """Some rows of the documents: a view where they are consecutive."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    within = documents[first:last]
    return np.asarray(within if last - first == len(rows) else within[rows - first])


def _search_block(
    search: BlockSearch, query_ND: Vectors, block_MD: Vectors, places: Indices, k: int
) -> tuple[Vectors, Indices]:
    """The best k of one block; where the k-th and the next score are equal, `places` decides who is in."""
    wanted = min(k, len(block_MD))
    scores, found = search(query_ND, block_MD, min(wanted + 1, len(block_MD)))
    if scores.shape[1] > wanted:
        tied = np.flatnonzero(scores[:, wanted - 1] == scores[:, wanted])
        scores, found = scores[:, :wanted].copy(), found[:, :wanted].copy()
        if len(tied):
            by_place = np.argsort(places)
            ordered_MD = block_MD[by_place]
            for start in range(0, len(tied), TIED_ROWS):
                rows = tied[start : start + TIED_ROWS]
                every = query_ND[rows] @ ordered_MD.T
                best = np.argsort(-every, axis=1, kind="stable")[:, :wanted]
                scores[rows], found[rows] = np.take_along_axis(every, best, axis=1), by_place[best]
    return scores, found


def _faiss_search(query_ND: Vectors, block_MD: Vectors, k: int) -> tuple[Vectors, Indices]:
    import faiss  # here, because on macOS loading it beside torch is enough to crash

    scores, found = faiss.knn(query_ND, block_MD, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, found


def _torch_search(device: torch.device, block_queries: int = 1024) -> BlockSearch:
    """Search a block with torch, some queries at a time: 64 MiB of scores."""

    def search(query_ND: Vectors, block_MD: Vectors, k: int) -> tuple[Vectors, Indices]:
        block = torch.tensor(block_MD, device=device)
        parts = [
            torch.topk(torch.tensor(query_ND[start : start + block_queries], device=device) @ block.T, k, dim=1)
            for start in range(0, len(query_ND), block_queries)
        ]
        if not parts:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        return (
            torch.cat([part.values for part in parts]).cpu().numpy(),
            torch.cat([part.indices for part in parts]).cpu().numpy(),
        )

    return search


def _load_vectors(path: Path, count: int, dim: int) -> Vectors | None:
    """The kept vectors, or None where there are none or where the file is damaged (then they are made again)."""
    try:
        vectors: Vectors = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if vectors.shape != (count, dim) or vectors.dtype != np.float32:
        return None
    for start in range(0, count, BLOCK_DOCUMENTS):
        block = vectors[start : start + BLOCK_DOCUMENTS]
        # Rows are unit vectors: holes and flipped bits show in the norm. Reading once also warms the page cache.
        if not np.all(np.abs(np.einsum("nd,nd->n", block, block) - 1.0) < 1e-3):
            return None
    return vectors


def _forget_unused(cache: Path, used: Path) -> None:
    """Note that one model's folder is in use, and remove those that were not for longest."""
    now = time.time_ns()
    os.utime(used, ns=(now, now))
    by_use = sorted((path for path in cache.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime_ns)
    for folder in by_use[:-KEPT_MODELS]:
        shutil.rmtree(folder, ignore_errors=True)


def _write_vectors(
    path: Path, encoder: Encoder, texts: Sequence[str], role: Role, task: str | None, label: str
) -> None:
    """Encode block by block into `path`, whole or not at all: each process every n-th block, in its place.

    Plain writes, not a writable memory map: on a full disk those raise, whereas a map would kill the process.
    """
    partial = processes.on_first(lambda: _new_file(path, (len(texts), encoder.dim)))
    hands = processes.count()
    size = min(BLOCK_TEXTS, -(-len(texts) // hands))
    rounds = -(-len(texts) // (size * hands))
    try:
        with partial.path.open("r+b") as stream:
            for number in range(processes.index(), rounds * hands, hands):
                block = texts[number * size : (number + 1) * size]  # none in the last round, maybe
                shown = f"{label} {number // hands + 1}/{rounds}" if label and rounds > 1 else label
                vectors_ND = encoder.encode(block, role, task, label=shown)
                stream.seek(partial.header + number * size * vectors_ND.strides[0])
                stream.write(np.ascontiguousarray(vectors_ND, np.float32).data)
            stream.flush()
            os.fsync(stream.fileno())
        processes.wait()
        processes.on_first(lambda: partial.path.replace(path) and None)
    finally:
        if processes.is_first():
            partial.path.unlink(missing_ok=True)


class _NewFile(NamedTuple):
    """An .npy file in the making, and how long its header is."""

    path: Path
    header: int


def _new_file(path: Path, shape: tuple[int, int]) -> _NewFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return _NewFile(partial, stream.tell())


def _share(items: Any) -> Any:
    """What this process takes of a sequence: every n-th of n processes."""
    return items[processes.index() :: processes.count()]


def _joined(shares: Sequence[NDArray[Number]]) -> NDArray[Number]:
    """The processes' shares, in the order of the whole."""
    if len(shares) == 1:
        return shares[0]
    whole = np.empty((sum(map(len, shares)), *shares[0].shape[1:]), shares[0].dtype)
    for place, share in enumerate(shares):
        whole[place :: len(shares)] = share
    return whole
