"""Which test queries, or labelled pairs, depend on each other: what a comparison draws is clusters of them.

Queries that one document answers rise and fall together when a model's vector of it moves; pairs that share a sentence
likewise. Clusters are the connected components of that relation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acclimate.core.same_text import connected, same_text_key
from acclimate.types import LabelledPair, Qrels


def query_clusters(qrels: Qrels, queries: Mapping[str, str], corpus: Mapping[str, str]) -> list[int]:
    """Number the cluster of every query: queries are connected by a relevant document, or by an equal text.

    Args:
        qrels: the queries that are compared, in their order; a grade above 0 is relevant.
        queries: id -> text; equal texts (`core.same_text`) are one query.
        corpus: id -> text; documents of equal text are one document.
    """

    def document(identifier: str) -> str:
        return f"d {same_text_key(corpus[identifier])}" if identifier in corpus else f"id {identifier}"

    return connected(
        [
            (f"q {same_text_key(queries[query])}", *(document(key) for key, grade in grades.items() if grade > 0))
            for query, grades in qrels.items()
        ]
    )


def pair_clusters(pairs: Sequence[LabelledPair]) -> list[int]:
    """Number the cluster of every labelled pair: pairs are connected by an equal sentence."""
    return connected([(same_text_key(pair.sentence1), same_text_key(pair.sentence2)) for pair in pairs])
