"""Queries that are documents too, under the same id, as in ArguAna and Quora: a query does not find itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

from acclimate.data.dataset import Dataset
from acclimate.types import Corpus, Qrels, Run


def own_documents(queries: Iterable[str], corpus: Corpus, qrels: Qrels) -> frozenset[str]:
    """Find the queries whose id is also that of a document, which is left out of their rankings.

    Args:
        queries: ids.
        corpus: id -> text.
        qrels: the queries' judgements. A document that is judged relevant to the query of its id stays: there the two
            ids are numbers of two lists.

    Returns:
        the ids that are both.

    Source: BEIR's evaluation (`ignore_identical_ids`), which leaves out relevant ones too.
    """
    return frozenset(query for query in queries if query in corpus and qrels.get(query, {}).get(query, 0) <= 0)


def own_texts(dataset: Dataset) -> list[tuple[str, str]]:
    """Find the training queries that are documents too: (text of the query, text of its document)."""
    train = dataset.qrels.get("train", {})
    own = sorted(own_documents(train, dataset.corpus, train))
    return [(dataset.queries[query], dataset.corpus[query]) for query in own]


def without_own(run: Run, own: Collection[str], k: int) -> Run:
    """Take the query's own document out of every ranking of those queries, and keep the first k of what is left."""
    return {
        query: dict(islice(((one, score) for one, score in ranked.items() if one != query or query not in own), k))
        for query, ranked in run.items()
    }
