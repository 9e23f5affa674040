"""BM25 as a careful user would set it up: in the corpus's language, with what is best on dev."""

from __future__ import annotations

from typing import Any

from acclimate.core.analyser import Analyser, language_of
from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly
from acclimate.evaluation.measures import evaluate_run
from acclimate.retrieval.bm25 import BM25
from acclimate.types import Qrels, Queries, Run

MEASURE = "ndcg@10"
MAX_DEV_QUERIES = 1_000
DEFAULT = "stop words left out, stemmed"
"""What is used where there is no dev split to choose on: Lucene's analysers of European languages do this."""


def variants(language: str | None) -> dict[str, Analyser]:
    """The analysers that are tried, by what they do; of equally good ones the first is taken."""
    if language is None:
        return {"words as they stand": Analyser()}
    return {
        DEFAULT: Analyser(language, stop_words=True, stemming=True),
        "stop words left out": Analyser(language, stop_words=True),
        "words as they stand": Analyser(language),
    }


def lexical_run(dataset: Dataset, queries: Queries, depth: int) -> tuple[Run, dict[str, Any]]:
    """Rank the whole corpus by BM25, with the variant of the analyser whose NDCG@10 on dev is best.

    The language is that of the queries, or of the documents where the queries' is not clear (a corpus of commands).

    Args:
        dataset: its corpus, and its dev split where it has one.
        queries: what to rank for.
        depth: documents per query.

    Returns:
        The run, and what was chosen: "language" (None: not one of `core.analyser.STOP_WORDS`), "variant", "chosen" (how
        it was), and "dev": the scores of all variants, where there is a dev split.
    """
    language = language_of(evenly(list(dataset.queries.values()))) or language_of(evenly(list(dataset.corpus.values())))
    tried = variants(language)
    dev = _dev(dataset)
    if len(tried) == 1 or not dev:
        variant = next(iter(tried))
        why = "the only one for this language" if len(tried) == 1 else "the default, as there is no dev split"
        run = BM25(dataset.corpus, tried[variant]).rank(queries, depth)
        return run, {"language": language, "variant": variant, "chosen": why, "dev": {}}
    asked = {query: dataset.queries[query] for query in dev}
    indexes = {name: BM25(dataset.corpus, analyser) for name, analyser in tried.items()}
    scores = {name: evaluate_run(index.rank(asked, 10), dev)[0][MEASURE] for name, index in indexes.items()}
    variant = max(scores, key=lambda name: scores[name])
    chosen = f"best {MEASURE} of {len(dev):,} dev queries"
    run = indexes[variant].rank(queries, depth)
    return run, {"language": language, "variant": variant, "chosen": chosen, "dev": scores}


def _dev(dataset: Dataset) -> Qrels:
    """The judgements of the dev queries that have a relevant document, or of an even sample of them."""
    judged = {query: grades for query, grades in dataset.qrels.get("dev", {}).items() if max(grades.values()) > 0}
    return {query: judged[query] for query in evenly(list(judged), MAX_DEV_QUERIES)}
