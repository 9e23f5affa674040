"""BM25 as sparse vectors, for an engine that multiplies by the inverse document frequency itself.

A document's value for term t is f / (f + k1 (1 - b + b |d| / mean|d|)), a query's is how often it holds t; the engine
multiplies each product by idf(t) = ln(1 + (M - n + 0.5) / (n + 0.5)). The sum is the score of `retrieval.bm25`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from acclimate.retrieval.bm25 import K1, B


class SparseVector(NamedTuple):
    """The dimensions that are not 0, ascending, and their values."""

    indices: list[int]
    values: list[float]


def term_id(term: str) -> int:
    """A term's dimension: 32 bits of its BLAKE2b hash, the same in every process and release.

    Of a vocabulary of V terms about V^2 / 2^33 pairs share a dimension (116 pairs of a million terms). The two count as
    one term then: a query for one also finds documents that hold the other, and the rarer one's idf is too low.
    """
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=4).digest(), "little")


def document_vector(terms: Sequence[str], mean_terms: float) -> SparseVector:
    """BM25's weights of a document without the idf.

    Args:
        terms: the document's terms, repeated ones as often as they stand there.
        mean_terms: the collection's mean number of terms per document.
    """
    norm = K1 * (1 - B + B * len(terms) / max(mean_terms, 1e-9))
    counts = Counter(term_id(term) for term in terms)
    return _sparse({dimension: count / (count + norm) for dimension, count in counts.items()})


def query_vector(terms: Sequence[str]) -> SparseVector:
    """How often a query holds each of its terms."""
    counts = Counter(term_id(term) for term in terms)
    return _sparse({dimension: float(count) for dimension, count in counts.items()})


def _sparse(values: dict[int, float]) -> SparseVector:
    ordered = sorted(values)
    return SparseVector(ordered, [values[dimension] for dimension in ordered])
