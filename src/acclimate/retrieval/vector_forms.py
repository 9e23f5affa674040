"""Forms in which document vectors can be stored: what each takes, and the search through it, on one thread.

float32 and float16: as they are. int8: all values times one constant, rounded: a scale per vector would change the
order of inner products. binary: the sign of every value; the nearest by Hamming distance are candidates, which are
scored again by the query's float32 values with the signs (Yamada et al. 2021, arXiv:2106.00882), or with INT8 vectors
that are kept beside them and read for the candidates only.

Shapes: N queries, M documents, D dimensions, k results, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.core.pooling import truncate_dim
from acclimate.retrieval.top_k import Indices, Vectors

Form: TypeAlias = Literal["float32", "float16", "int8", "binary", "binary, int8"]
FORMS: tuple[Form, ...] = ("float32", "float16", "int8", "binary, int8", "binary")
Search: TypeAlias = Callable[[Vectors, int], tuple[Vectors, Indices]]
"""(query_ND, k) -> scores [N, k] and rows [N, k], best first; row -1 where there are fewer."""
LEVELS = 127
BITS = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """Documents in one form."""

    form: Form
    dim: int
    searched_bytes: int
    """Bytes of a vector that every search reads."""
    bytes: int
    """All bytes of a vector, those that are read for candidates too."""
    search: Search


def store(document_MD: Vectors, form: Form, dim: int, oversampling: int) -> Stored:
    """Store documents in a form.

    Args:
        document_MD: unit rows, float32.
        form: see the top of this file.
        dim: leading dimensions that are kept, renormalised.
        oversampling: candidates of a binary form, for each result.
    """
    vectors_MD = cut(document_MD, dim)
    packed = -(-dim // BITS)
    if form == "float32":
        return Stored(form, dim, 4 * dim, 4 * dim, _flat(faiss.IndexFlatIP(dim), vectors_MD, dim))
    if form == "float16":
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        return Stored(form, dim, 2 * dim, 2 * dim, _flat(index, vectors_MD, dim))
    if form == "int8":
        return Stored(form, dim, dim, dim, _int8(vectors_MD, dim))
    if form == "binary":
        return Stored(form, dim, packed, packed, _binary(vectors_MD, None, dim, oversampling))
    search = _binary(vectors_MD, rounded(vectors_MD), dim, oversampling)
    return Stored(form, dim, packed, packed + dim, search)


def cut(vectors_ND: Vectors, dim: int) -> Vectors:
    """Keep the leading dimensions, renormalised; all of them: the vectors as they are."""
    if dim == vectors_ND.shape[1]:
        return np.asarray(vectors_ND, np.float32)
    return np.asarray(truncate_dim(torch.from_numpy(np.array(vectors_ND, np.float32)), dim))


def rounded(vectors_MD: Vectors) -> NDArray[np.int8]:
    """INT8 by one constant for all vectors: the largest value becomes 127."""
    largest = max(float(np.abs(vectors_MD).max(initial=0.0)), float(np.finfo(np.float32).tiny))
    whole: NDArray[np.int8] = np.rint(vectors_MD * (LEVELS / largest)).astype(np.int8)
    return whole


@contextmanager
def one_thread() -> Iterator[None]:
    """Search on one thread: what a query costs, however many come at a time."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _flat(index: Any, vectors_MD: Vectors, dim: int) -> Search:
    index.train(vectors_MD)
    index.add(vectors_MD)

    def search(query_ND: Vectors, k: int) -> tuple[Vectors, Indices]:
        found: tuple[Vectors, Indices] = index.search(cut(query_ND, dim), k)
        return found

    return search


def _int8(vectors_MD: Vectors, dim: int) -> Search:
    index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT)
    index.add(rounded(vectors_MD).astype(np.float32))

    def search(query_ND: Vectors, k: int) -> tuple[Vectors, Indices]:
        # FAISS compares whole numbers. Only the order counts, so each query is stretched by a factor of its own.
        query_ND = cut(query_ND, dim)
        largest_N1 = np.abs(query_ND).max(axis=1, keepdims=True)
        found: tuple[Vectors, Indices] = index.search(np.rint(query_ND * (LEVELS / largest_N1)), k)
        return found

    return search


def _binary(vectors_MD: Vectors, exact_MD: NDArray[np.int8] | None, dim: int, oversampling: int) -> Search:
    bits_MB = _bits(vectors_MD)
    index = faiss.IndexBinaryFlat(bits_MB.shape[1] * BITS)
    index.add(bits_MB)

    def search(query_ND: Vectors, k: int) -> tuple[Vectors, Indices]:
        query_ND = cut(query_ND, dim)
        row_NC = index.search(_bits(query_ND), min(k * oversampling, len(bits_MB)))[1]
        if exact_MD is None:
            signs_NCB = np.unpackbits(bits_MB[row_NC], axis=2, count=dim, bitorder="little")
            score_NC = np.einsum("ncd,nd->nc", signs_NCB.astype(np.float32) * 2 - 1, query_ND)
        else:
            score_NC = np.einsum("ncd,nd->nc", exact_MD[row_NC].astype(np.float32), query_ND)
        best_NK = np.argsort(-score_NC, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(score_NC, best_NK, axis=1), np.take_along_axis(row_NC, best_NK, axis=1)

    return search


def _bits(vectors_ND: Vectors) -> NDArray[np.uint8]:
    return np.packbits(vectors_ND > 0, axis=1, bitorder="little")
