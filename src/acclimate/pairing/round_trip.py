"""The round trip: does a search for a made query find the passage that it was made for?

Shapes: N queries, M passages, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acclimate.core.analyser import language_of
from acclimate.data.facts import evenly
from acclimate.evaluation.lexical import DEFAULT, variants
from acclimate.pairing.made_pair import MadePair
from acclimate.retrieval.bm25 import BM25
from acclimate.retrieval.top_k import Vectors, top_k


def finds(
    pairs: Sequence[MadePair], passages: Sequence[str], query_ND: Vectors, passage_MD: Vectors, k: int
) -> list[bool]:
    """Say of every pair whether its passage is among the first k for its query, by words or by vectors.

    Args:
        pairs: whose passages are among `passages`.
        passages: what is searched, each once.
        query_ND: the queries' vectors.
        passage_MD: the passages' vectors.
        k: how many results count.
    """
    place = {text: number for number, text in enumerate(passages)}
    wanted_N = np.array([place[pair.positive] for pair in pairs], np.int64)
    _, found_Nk = top_k(query_ND, passage_MD, k)
    dense_N = (found_Nk == wanted_N[:, None]).any(axis=1)
    analysers = variants(language_of(evenly(list(passages))))
    index = BM25({str(number): text for number, text in enumerate(passages)}, analysers.get(DEFAULT))
    ranked = index.rank({str(row): pair.query for row, pair in enumerate(pairs)}, k)
    return [bool(dense_N[row]) or str(wanted_N[row]) in ranked[str(row)] for row in range(len(pairs))]
