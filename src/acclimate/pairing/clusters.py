"""Cluster mates: passages of two documents that are near as vectors and share rare terms. A guess that experts check.

Shapes: M passages, D dimensions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from acclimate.core.analyser import Analyser, language_of
from acclimate.core.same_text import same_text_key
from acclimate.data.facts import evenly
from acclimate.pairing.made_pair import MadePair
from acclimate.retrieval.top_k import Vectors

CLUSTER_SIZE = 20
"""Passages per cluster, on average."""
SHARED_TERMS = 2
"""Rare terms that both passages hold, at least: near vectors alone often mean nothing but the same kind of text."""
RARE_SHARE = 0.02
"""A term is rare if at most this share of the passages holds it."""
MIN_RARE = 10
"""And in small corpora, if at most so many do."""
NEAR_COPY = 0.97
"""Passages with a higher cosine are copies of each other, from which nothing is learned."""


def cluster_mates(passages: Sequence[tuple[str, str]], vectors_MD: Vectors, seed: int) -> Iterator[MadePair]:
    """Yield for every passage its nearest mate: of the same cluster, of another document, with shared rare terms.

    Args:
        passages: (document, text) of each.
        vectors_MD: their unit vectors.
        seed: of k-means.
    """
    if len(passages) < 2:
        return
    rare = _rare_terms([text for _, text in passages])
    for members in _clusters(vectors_MD, seed):
        near_CC = np.array(vectors_MD[members] @ vectors_MD[members].T)
        for place, passage in enumerate(members.tolist()):
            document, text = passages[passage]
            for other in np.argsort(-near_CC[place], kind="stable").tolist():
                mate, mate_text = passages[int(members[other])]
                if mate == document or near_CC[place, other] > NEAR_COPY:
                    continue
                shares = len(rare[passage] & rare[int(members[other])]) >= SHARED_TERMS
                if shares and same_text_key(text) != same_text_key(mate_text):
                    yield MadePair(text, mate_text, "cluster", mate, beside=document)
                    break


def _clusters(vectors_MD: Vectors, seed: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Row numbers of each cluster of k-means."""
    from sklearn.cluster import MiniBatchKMeans  # takes a second to import

    count = max(1, len(vectors_MD) // CLUSTER_SIZE)
    means = MiniBatchKMeans(count, random_state=seed, n_init=1, batch_size=4096)
    labels = means.fit_predict(np.asarray(vectors_MD))
    order = np.argsort(labels, kind="stable")
    borders = np.flatnonzero(np.diff(labels[order])) + 1
    yield from np.split(order, borders)


def _rare_terms(texts: Sequence[str]) -> list[frozenset[str]]:
    """The terms of every text that few of the texts hold."""
    language = language_of(evenly(list(texts)))
    analyser = Analyser(language, stop_words=language is not None, stemming=language is not None)
    terms = [frozenset(analyser.terms(text)) for text in texts]
    holding = Counter(term for found in terms for term in found)
    most = max(MIN_RARE, RARE_SHARE * len(texts))
    return [frozenset(term for term in found if 1 < holding[term] <= most) for found in terms]
