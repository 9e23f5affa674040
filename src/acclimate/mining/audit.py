"""A summary of what mining found, for people to check."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from acclimate.configs import MineConfig, flag
from acclimate.mining.mine import MinedBlock, MinedQuery

HISTOGRAM_BINS = 40
LIKELIEST = 20
NAMED_QUERIES = 50
NEARLY_ALL = 0.8
"""Share of the candidates from which what one filter removes is a warning."""
MANY_WITHOUT = 0.2
"""Share of the queries from which being without negatives is a warning."""
LOOSER = {
    "min_score": "lower it",
    "max_score": "raise it",
    "absolute_margin": "lower it, or leave it out: the default margin fits any scale of scores",
    "relative_margin": "lower it, or leave it out: the default margin fits any scale of scores",
    "spread_margin": "lower it, or take a --teacher or a --reranker that ranks this data better",
    "range_min": "lower it",
}
"""Filter -> what to do where it removes nearly everything."""
SUSPECT_FIELDS = ("negative_score", "query", "negative", "positive", "positive_score")
Suspect: TypeAlias = tuple[float, str, str, str, float]
"""The values of `SUSPECT_FIELDS`: a chosen negative and the query's best positive; sorted by the negative's score."""


class Audit:
    """Sums up mined blocks one by one; holds scores, and the texts of twenty rows only.

    Args:
        config: the settings of the mining.
        query_ids: query text -> its id, for the list of queries with too few.
    """

    def __init__(self, config: MineConfig, query_ids: Mapping[str, str]) -> None:
        self.config = config
        self.query_ids = query_ids
        self.queries = 0
        self.candidates = 0
        self.near_copies = 0
        self.removed: Counter[str] = Counter()
        self.filled: Counter[str] = Counter()
        self.spread = 0.0
        self.examples = 0
        self.with_negatives = 0
        self.positive_scores = array("f")
        self.negative_scores = array("f")
        self.too_few: list[str] = []
        self.without = 0
        self.likeliest: list[Suspect] = []

    def add(self, block: MinedBlock) -> None:
        """Take one block into account."""
        self.queries += len(block.queries)
        self.candidates += block.candidates
        self.near_copies += block.near_copies
        self.removed.update(block.removed)
        self.filled.update(block.filled)
        self.spread = block.spread
        self.examples += block.examples
        self.with_negatives += block.with_negatives
        for mined in block.queries:
            self.positive_scores.extend(one.score for one in mined.positives)
            self.negative_scores.extend(one.score for one in mined.negatives)
            self.without += not mined.negatives
            if len(mined.negatives) < self.config.num_negatives:
                self.too_few.append(self.query_ids.get(mined.query, mined.query))
        rows = (row for mined in block.queries for row in _suspects(mined))
        self.likeliest = heapq.nlargest(LIKELIEST, [*self.likeliest, *rows])

    def summary(self) -> dict[str, Any]:
        """The content of `audit.json`.

        `likeliest_false_negatives` are the chosen negatives that score highest; `removed` counts, per filter, the
        candidates that it removed of those that the filters before it had left; `near_copies` counts what is nearly a
        positive of its query, and so was no candidate; `filled` counts the queries that got
        (some of) their negatives only by loosening a filter, or by looking deeper (`range_max`). `hard_negative_share`
        is the share of the training examples with a hard negative, mined or given. `score_spread` is the unit of
        `spread_margin` (`core.spread`).
        """
        positive = np.array(self.positive_scores, np.float32)
        negative = np.array(self.negative_scores, np.float32)
        edges = np.histogram_bin_edges(np.concatenate([positive, negative]), HISTOGRAM_BINS)
        return {
            "queries": self.queries,
            "positives": len(positive),
            "negatives": len(negative),
            "candidates": self.candidates,
            "near_copies": self.near_copies,
            "removed": dict(self.removed),
            "filled": dict(self.filled),
            "hard_negative_share": round(self.with_negatives / max(1, self.examples), 4),
            "score_spread": self.spread,
            "spread_margin": self.config.effective_spread_margin,
            "mean_positive_score": float(positive.mean()) if len(positive) else None,
            "mean_negative_score": float(negative.mean()) if len(negative) else None,
            "histograms": {
                "edges": edges.tolist(),
                "positive": np.histogram(positive, edges)[0].tolist(),
                "negative": np.histogram(negative, edges)[0].tolist(),
            },
            "likeliest_false_negatives": [dict(zip(SUSPECT_FIELDS, row, strict=True)) for row in self.likeliest],
            "queries_without_negatives": self.without,
            "queries_with_too_few": len(self.too_few),
            "queries_with_too_few_ids": self.too_few[:NAMED_QUERIES],
            "warnings": self.warnings(),
        }

    def warnings(self) -> list[str]:
        """What should be looked at before a training: a filter that removes nearly everything, queries left without."""
        found = []
        for name, count in self.removed.items():
            if count > NEARLY_ALL * self.candidates:
                found.append(
                    f"{name} removed {count / self.candidates:.0%} of the candidates ({flag(name)}): {LOOSER[name]}"
                )
        if self.without > MANY_WITHOUT * self.queries:
            found.append(
                f"{self.without / self.queries:.0%} of the queries are left without hard negatives: no candidate in "
                "reach scores low enough below their positive; take a --teacher or a --reranker that ranks this data "
                "better, or lower the filters named above"
            )
        return found


def _suspects(mined: MinedQuery) -> list[Suspect]:
    best = max(mined.positives, key=lambda one: one.score)
    return [(one.score, mined.query, one.document, best.document, best.score) for one in mined.negatives]
