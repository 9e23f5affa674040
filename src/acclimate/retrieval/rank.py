"""Ranking a corpus for queries, by the vectors of one encoder.

Shapes: N queries, M documents, D dimensions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from acclimate import processes
from acclimate.retrieval.own_documents import without_own
from acclimate.retrieval.shares import joined, stride
from acclimate.retrieval.top_k import Vectors, top_k
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.types import Corpus, Queries, Run

if TYPE_CHECKING:
    from acclimate.models.text_encoder import TextEncoder


def rank_vectors(
    query_ids: Sequence[str],
    query_ND: Vectors,
    doc_ids: Sequence[str],
    doc_MD: Vectors,
    k: int,
    *,
    own: Collection[str] = (),
    device: torch.device | str = "cpu",
) -> Run:
    """Rank documents for every query by the inner product of their vectors; several processes share the queries.

    Args:
        query_ids: [N]
        query_ND: unit rows.
        doc_ids: [M]
        doc_MD: unit rows; may be a memory map.
        k: documents kept per query.
        own: queries in whose ranking the document of the same id is left out (`retrieval.own_documents`).
        device: where to search.

    Returns:
        A `Run` of the best k: score descending, then document id ascending.
    """
    tie_order = np.empty(len(doc_ids), np.int64)
    tie_order[sorted(range(len(doc_ids)), key=doc_ids.__getitem__)] = np.arange(len(doc_ids))
    parts = processes.gather(top_k(stride(query_ND), doc_MD, k + bool(own), tie_order=tie_order, device=device))
    scores, index = (joined([part[which] for part in parts]) for which in (0, 1))
    run = {
        query_id: {doc_ids[document]: score for document, score in zip(documents, row, strict=True)}
        for query_id, documents, row in zip(query_ids, index.tolist(), scores.tolist(), strict=True)
    }
    return without_own(run, own, k) if own else run


class Ranking(NamedTuple):
    """A ranked corpus, and the vectors by which it was ranked."""

    run: Run
    query_ND: Vectors
    doc_MD: Vectors


def rank(
    encoder: TextEncoder,
    queries: Queries,
    corpus: Corpus,
    k: int,
    *,
    task: str | None = None,
    own: Collection[str] = (),
    cache: Path | None = None,
    label: str = "",
) -> Run:
    """Rank the whole corpus for every query with one encoder; the arguments are those of `rank_with_vectors`."""
    return rank_with_vectors(encoder, queries, corpus, k, task=task, own=own, cache=cache, label=label).run


def rank_with_vectors(
    encoder: TextEncoder,
    queries: Queries,
    corpus: Corpus,
    k: int,
    *,
    task: str | None = None,
    own: Collection[str] = (),
    cache: Path | None = None,
    label: str = "",
) -> Ranking:
    """Rank the whole corpus for every query with one encoder, and keep the vectors.

    Args:
        encoder: gives the vectors of both sides, with its own prompts.
        queries: id -> text.
        corpus: id -> text.
        k: documents kept per query.
        task: the task whose prompts are used; the encoder's default if not given.
        own: queries in whose ranking the document of the same id is left out (`retrieval.own_documents`).
        cache: folder in which the documents' vectors are kept.
        label: whose vectors, for the progress bar; silent if empty.
    """
    query_ND = encode_corpus(
        encoder, list(queries.values()), None, label and f"{label} queries", role="query", task=task
    )
    doc_MD = encode_corpus(encoder, list(corpus.values()), cache, label and f"{label} documents", task=task)
    run = rank_vectors(list(queries), query_ND, list(corpus), doc_MD, k, own=own, device=encoder.device)
    return Ranking(run, query_ND, doc_MD)
