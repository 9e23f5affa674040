"""Below which score a question is not answered: chosen on dev queries, whose relevant documents are known.

A question's score is the cosine of its best document. Taking the relevant documents away makes every dev query a
question that the documents do not answer; its score then is that of the best document that is left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from acclimate.retrieval.index.records import Hit
from acclimate.retrieval.index.reports import RefusalChoice
from acclimate.types import Qrels

CONFIDENCE = 0.8
"""How sure it shall be that the wanted share is refused. Surer refuses more of the questions that have an answer, and
the language model, which reads what passes, refuses too."""


def choose_refusal(dense: Mapping[str, Sequence[Hit]], qrels: Qrels, model: str, wanted: float) -> RefusalChoice:
    """Choose the lowest threshold that refuses enough of the questions without an answer.

    Args:
        dense: dev query -> what a dense search found for it, best first; deep enough that something else than its
            relevant documents is among it.
        qrels: which documents are relevant to these queries.
        model: what encoded them.
        wanted: the share of the questions without an answer that shall be refused; 0 chooses no threshold.
    """
    full, emptied = [], []
    for query, hits in dense.items():
        relevant = {name for name, grade in qrels[query].items() if grade > 0}
        others = [hit.score for hit in hits if (hit.document.parent or hit.id) not in relevant]
        if others:
            full.append(hits[0].score)
            emptied.append(others[0])
    threshold = bound_of_quantile(emptied, wanted, CONFIDENCE) if wanted else None
    count = max(1, len(full))
    said = f"{wanted:.0%} refused with {CONFIDENCE:.0%} confidence, by {len(full):,} dev queries"
    if not wanted:
        said = "nothing, as was asked for"
    elif threshold is None:
        said = f"nothing, as there are {len(full)} dev queries, which are too few to be sure of {wanted:.0%}"
    return {
        "threshold": threshold,
        "model": model,
        "wanted": wanted,
        "confidence": CONFIDENCE,
        "queries": len(full),
        "refused": 0.0 if threshold is None else sum(score <= threshold for score in emptied) / count,
        "answered": 1.0 if threshold is None else sum(score > threshold for score in full) / count,
        "chosen": said,
    }


def bound_of_quantile(scores: Sequence[float], share: float, confidence: float) -> float | None:
    """Find a score that is at least the quantile of what the scores are drawn from, as surely as is asked for.

    The k-th smallest of n scores is below the quantile where fewer than n - k + 1 of them are above it; how many are,
    is binomial, whatever the scores' distribution is (Wilks 1941, one-sided tolerance limit).

    Args:
        scores: a sample, in any order.
        share: the quantile, between 0 and 1.
        confidence: the probability that the score is no lower than the quantile, between 0 and 1.

    Returns:
        The lowest such score of the sample; None where the sample is too small for the highest to be one.
    """
    place = _place(len(scores), share, confidence)
    return None if place is None else sorted(scores)[place]


@lru_cache
def _place(count: int, share: float, confidence: float) -> int | None:
    """Which of so many sorted scores it is, from 0."""
    below = 0.0
    for place in range(count):
        below += math.comb(count, place) * share**place * (1 - share) ** (count - place)
        if below >= confidence:
            return place
    return None
