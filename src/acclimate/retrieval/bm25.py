"""BM25, the lexical baseline that every embedding model is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from acclimate.core.analyser import Analyser
from acclimate.core.metrics import rank_documents
from acclimate.types import Corpus, Queries, Run

K1 = 1.2
B = 0.75


class BM25:
    """An index of a corpus: every term's weight in every document, computed once.

    score(q, d) = sum over the query's tokens t of idf(t) * f / (f + k1 (1 - b + b |d| / mean|d|)), with f the count of
    t in d and idf(t) = ln(1 + (M - n + 0.5) / (n + 0.5)), n documents holding t: Robertson and Zaragoza 2009, equation
    3.15, in the form of Lucene (its idf is never negative; the constant factor k1 + 1 is dropped) and with Lucene's
    k1 = 1.2, b = 0.75.
    """

    def __init__(self, corpus: Corpus, analyser: Analyser | None = None) -> None:
        """Index a corpus.

        Args:
            corpus: id -> text.
            analyser: how documents and queries become terms; words as they stand if not given.
        """
        self.analyser = analyser or Analyser()
        self.ids = sorted(corpus)
        self.terms: dict[str, int] = {}
        documents, terms, counts, lengths = [], [], [], []
        for index, identifier in enumerate(self.ids):
            tokens = self.analyser.terms(corpus[identifier])
            lengths.append(len(tokens))
            for token, count in Counter(tokens).items():
                documents.append(index)
                terms.append(self.terms.setdefault(token, len(self.terms)))
                counts.append(count)
        weights = _term_weights(np.array(documents, np.int64), np.array(terms, np.int64), counts, lengths)
        self._weights_TM = csr_array((weights, (terms, documents)), shape=(len(self.terms), len(self.ids)))

    def scores(self, query: str) -> npt.NDArray[np.float64]:
        """The query's score with every document, in the order of `ids`."""
        total_M = np.zeros(len(self.ids))
        weights = self._weights_TM
        for token, count in Counter(self.analyser.terms(query)).items():
            if (term := self.terms.get(token)) is not None:
                row = slice(weights.indptr[term], weights.indptr[term + 1])
                total_M[weights.indices[row]] += count * weights.data[row]
        return total_M

    def rank(self, queries: Queries, k: int) -> Run:
        """The best k documents of every query; a document that shares no term with the query is not found."""
        return {identifier: self._top(text, k) for identifier, text in queries.items()}

    def _top(self, query: str, k: int) -> dict[str, float]:
        scores_M = self.scores(query)
        least = np.partition(scores_M, -k)[-k] if k < scores_M.size else 0.0
        # Every tie with the k-th score stays until the ids decide.
        kept = np.flatnonzero((scores_M > 0) & (scores_M >= least))
        ids = [self.ids[index] for index in kept]
        return {ids[row]: float(scores_M[kept[row]]) for row in rank_documents(scores_M[kept], ids)[:k]}


def _term_weights(
    documents: npt.NDArray[np.int64], terms: npt.NDArray[np.int64], counts: Sequence[int], lengths: Sequence[int]
) -> npt.NDArray[np.float64]:
    """BM25's weight of each (term, document) entry."""
    length_M = np.asarray(lengths, np.float64)
    frequency = np.asarray(counts, np.float64)
    holding = np.bincount(terms)
    idf = np.log1p((length_M.size - holding + 0.5) / (holding + 0.5))
    norm_M = K1 * (1 - B + B * length_M / max(float(length_M.mean()), 1e-9))
    weights: npt.NDArray[np.float64] = idf[terms] * frequency / (frequency + norm_M[documents])
    return weights
