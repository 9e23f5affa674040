"""The domain of an adapter: centroids of its training queries, by the base's vectors, and how far its own queries lie.

Every adapter keeps its own centroids, in the space of the base's queries, so that adapters which were trained apart are
compared by one pass of the base (RouterRetriever, Lee et al. 2024, arXiv 2409.02685; there one centroid for each
training set, here several, and a radius beyond which the base answers).

Shapes: N queries, C centroids, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acclimate.data.facts import evenly
from acclimate.files import hash_config
from acclimate.formats.query_domain import QueryDomain
from acclimate.models.encoder import Encoder
from acclimate.models.text_encoder import TextEncoder
from acclimate.retrieval.top_k import Vectors
from acclimate.retrieval.vector_cache import encode_corpus

FEWEST, MOST = 8, 32
"""Centroids of a domain."""
QUERIES_PER_CENTROID = 30
QUANTILE = 0.95
"""Share of a domain's own unseen queries that lie within its radius."""
MAX_QUERIES = 4000
"""Training queries that centroids are made of: more would not move them, and cost a pass each."""
EVERY_FIFTH = 5
"""Where there is no dev split, every so many-th training query makes the radius and no centroid."""
ROUNDS = 25


def query_space(base: TextEncoder) -> str:
    """Return what decides the base's query vectors, hashed; texts' limit and number format change them too little."""
    use = base.source.use
    return hash_config(
        {
            "weights": base.source.sha256,
            "computation": base.source.computation,
            "prompt": use.prompts.prompt("query"),
            "pooling": use.pooling,
            "dim": use.dim,
            "lowercase": use.lowercase,
        }
    )


def query_domain(base: Encoder, queries: Sequence[str], unseen: Sequence[str]) -> QueryDomain | None:
    """Find the domain of an adapter; several processes share the encoding, and all of them have to call this.

    Args:
        base: without an adapter, or with all of them off; texts are used as its own files say, whatever its `use`.
        queries: the adapter's training queries.
        unseen: queries of the same kind that it was not trained on; where there are none, every fifth of `queries`
            stands for them.

    Returns:
        None where there are no queries.
    """
    train, held = (evenly(list(dict.fromkeys(texts)), MAX_QUERIES) for texts in (queries, unseen))
    if not held and len(train) > EVERY_FIFTH:
        held = train[::EVERY_FIFTH]
        train = [query for place, query in enumerate(train) if place % EVERY_FIFTH]
    if not train:
        return None
    plain = base.with_own_use()
    vectors = encode_corpus(plain, [*train, *(held or train)], None, role="query")
    return fitted(vectors[: len(train)], vectors[len(train) :], query_space(base))


def fitted(train_ND: Vectors, unseen_ND: Vectors, space: str) -> QueryDomain:
    """Fit centroids to some query vectors, and the radius to others.

    Args:
        train_ND: unit rows, at least one.
        unseen_ND: unit rows, at least one.
        space: see `query_space`.
    """
    import faiss  # here: on macOS it and torch fight over OpenMP, and most of what imports this never comes here

    count = min(max(FEWEST, min(MOST, len(train_ND) // QUERIES_PER_CENTROID)), len(train_ND))
    means = faiss.Kmeans(train_ND.shape[1], count, niter=ROUNDS, spherical=True, min_points_per_centroid=1, seed=1)
    means.train(np.ascontiguousarray(train_ND, np.float32))
    centroids = np.asarray(means.centroids, np.float32).reshape(count, -1)
    centroids = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    domain = QueryDomain(centroids, 0.0, len(train_ND), len(unseen_ND), space)
    radius = float(np.clip(np.quantile(domain.distances(unseen_ND), QUANTILE), 0.0, 2.0))
    return QueryDomain(centroids, radius, len(train_ND), len(unseen_ND), space)
