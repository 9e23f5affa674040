"""BM25 as a careful user would set it up: in the corpus's language, with what is best on queries outside the test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from acclimate.core.analyser import Analyser, language_of
from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly
from acclimate.evaluation.measures import evaluate_run
from acclimate.files import REPORT_FILE, read_json
from acclimate.retrieval.bm25 import BM25
from acclimate.retrieval.own_documents import own_documents, without_own
from acclimate.types import Qrels, Queries, Run

MEASURE = "ndcg@10"
ENOUGH = 500
"""Queries to choose on. Where dev has fewer, training queries join: BM25 learns nothing from them."""
DEFAULT = "stop words left out, stemmed"
"""What is used where there is nothing to choose on: Lucene's analysers of European languages do this."""


class LexicalChoice(TypedDict):
    """How BM25 was set up, and how that was chosen."""

    language: str | None
    """One of `core.analyser.STOP_WORDS`, or None."""
    variant: str
    chosen: str
    tried: dict[str, float]
    """Variant -> its score; empty where there was nothing to choose, or nothing to choose on."""


def variants(language: str | None) -> dict[str, Analyser]:
    """The analysers that are tried, by what they do; of equally good ones the first is taken."""
    if language is None:
        return {"words as they stand": Analyser()}
    return {
        DEFAULT: Analyser(language, stop_words=True, stemming=True),
        "stop words left out": Analyser(language, stop_words=True),
        "words as they stand": Analyser(language),
    }


def analyser_for(evaluation: Path, texts: Iterable[str]) -> Analyser:
    """Choose how texts become words in an index that is made: as a run's evaluation has chosen, else by language.

    Args:
        evaluation: the folder of the run's evaluation; it may not be there.
        texts: some of those that the index will hold.
    """
    report = evaluation / REPORT_FILE
    chosen = read_json(report).get("lexical") if report.exists() else None
    known = variants(chosen["language"] if chosen else language_of(texts))
    return known.get(chosen["variant"] if chosen else "") or next(iter(known.values()))


def lexical_run(dataset: Dataset, queries: Queries, depth: int) -> tuple[Run, LexicalChoice]:
    """Rank the whole corpus by BM25, with the variant of the analyser whose NDCG@10 is best outside the test.

    The language is that of the queries, or of the documents where the queries' is not clear (a corpus of commands).

    Args:
        dataset: its corpus, and its dev and train splits where it has them.
        queries: what to rank for.
        depth: documents per query.

    Returns:
        The run, and how BM25 was set up for it.
    """
    language = language_of(evenly(list(dataset.queries.values()))) or language_of(evenly(list(dataset.corpus.values())))
    tried = variants(language)
    qrels, which = _outside_test(dataset)
    if len(tried) == 1 or not qrels:
        variant = next(iter(tried))
        why = (
            "the only one for this language" if len(tried) == 1 else "the default, as all queries are in the test split"
        )
        run = _rank(BM25(dataset.corpus, tried[variant]), dataset, queries, dataset.qrels.get("test", {}), depth)
        return run, {"language": language, "variant": variant, "chosen": why, "tried": {}}
    asked = {query: dataset.queries[query] for query in qrels}
    indexes = {name: BM25(dataset.corpus, analyser) for name, analyser in tried.items()}
    scores = {
        name: evaluate_run(_rank(index, dataset, asked, qrels, 10), qrels)[0][MEASURE]
        for name, index in indexes.items()
    }
    variant = max(scores, key=lambda name: scores[name])
    chosen = f"best {MEASURE.upper()} of {len(qrels):,} {which} queries"
    run = _rank(indexes[variant], dataset, queries, dataset.qrels.get("test", {}), depth)
    return run, {"language": language, "variant": variant, "chosen": chosen, "tried": scores}


def _rank(index: BM25, dataset: Dataset, queries: Queries, qrels: Qrels, depth: int) -> Run:
    own = own_documents(queries, dataset.corpus, qrels)
    return without_own(index.rank(queries, depth + bool(own)), own, depth)


def _outside_test(dataset: Dataset) -> tuple[Qrels, str]:
    """At most `ENOUGH` judged queries: an even sample of dev, filled up from train; and what they are."""
    dev, train = (
        {query: grades for query, grades in dataset.qrels.get(split, {}).items() if max(grades.values()) > 0}
        for split in ("dev", "train")
    )
    chosen = {query: dev[query] for query in evenly(list(dev), ENOUGH)}
    missing = ENOUGH - len(chosen)
    filling = {query: train[query] for query in evenly(list(train), missing)} if missing else {}
    return chosen | filling, " and ".join(name for name, some in (("dev", chosen), ("training", filling)) if some)
