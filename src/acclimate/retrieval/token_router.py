"""TokenRouter: which adapter a query belongs to, by its tokens alone. It costs no pass of a model.

A multinomial logistic regression over which tokens a query has. Unlike centroids, which every adapter brings along, it
is fitted to the training queries of all adapters together, and once more when one of them changes.

Shapes: N queries, V tokens of the vocabulary, K adapters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.data.facts import evenly
from acclimate.errors import UsageError
from acclimate.models.tokens import tokenise
from acclimate.retrieval.centroids import EVERY_FIFTH, MAX_QUERIES, QUANTILE

MAX_TOKENS = 512
"""Tokens of a query that are looked at."""
INVERSE_PENALTY = 10.0
ROUNDS = 300


@dataclass(frozen=True, slots=True, eq=False)
class TokenRouter:
    """A fitted router. The distance of an adapter is 1 - its probability."""

    names: tuple[str, ...]
    radii: Mapping[str, float]
    """Adapter -> the distance that only a few of its own unseen queries exceed."""
    tokenizer: Any
    weight_VK: NDArray[np.float32]
    bias_K: NDArray[np.float32]

    @classmethod
    def fit(
        cls, tokenizer: Any, queries: Mapping[str, Sequence[str]], unseen: Mapping[str, Sequence[str]]
    ) -> TokenRouter:
        """Fit to the training queries of several adapters.

        Args:
            tokenizer: the base's; its vocabulary is V.
            queries: adapter -> its training queries.
            unseen: adapter -> queries that it was not trained on, for its radius; where there are none, every fifth of
                `queries` stands for them.

        Raises:
            UsageError: fewer than two adapters, or one without queries.
        """
        if len(queries) < 2 or not all(queries.values()):
            raise UsageError(
                f"a router by tokens for {len(queries)} adapters, {sum(map(bool, queries.values()))} with queries",
                possible="two or more, each with training queries",
                fix="Route by centroids.",
            )
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import LogisticRegression

        names, taken, held = tuple(queries), {}, {}
        for name in names:
            taken[name] = evenly(list(dict.fromkeys(queries[name])), MAX_QUERIES)
            held[name] = evenly(list(dict.fromkeys(unseen.get(name, ()))), MAX_QUERIES)
            if not held[name] and len(taken[name]) > EVERY_FIFTH:
                held[name] = taken[name][::EVERY_FIFTH]
                taken[name] = [text for place, text in enumerate(taken[name]) if place % EVERY_FIFTH]
        rows = _token_sets(tokenizer, [text for name in names for text in taken[name]])
        label_N = np.repeat(np.arange(len(names)), [len(taken[name]) for name in names])
        counts_N = np.array([len(row) for row in rows])
        values = np.repeat(1.0 / np.sqrt(counts_N), counts_N)
        places = (np.concatenate(rows), np.concatenate([[0], np.cumsum(counts_N)]))
        features_NV = csr_matrix((values, *places), shape=(len(rows), len(tokenizer)))
        model = LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=ROUNDS)
        model.fit(features_NV, label_N)
        weight_KV, bias_K = model.coef_, model.intercept_
        if len(names) == 2:  # one row: of the second against the first
            weight_KV, bias_K = np.vstack([0 * weight_KV, weight_KV]), np.concatenate([0 * bias_K, bias_K])
        weight_VK = np.ascontiguousarray(weight_KV.T, np.float32)
        fitted = cls(names, {}, tokenizer, weight_VK, bias_K.astype(np.float32))
        radii = {}
        for name in names:
            own = [row[name] for row in fitted.distances(held[name] or taken[name])]
            radii[name] = float(np.quantile(own, QUANTILE))
        return cls(names, radii, tokenizer, weight_VK, fitted.bias_K)

    def distances(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Distances of some queries: for each, adapter -> 0 to 1."""
        found = []
        for row in _token_sets(self.tokenizer, texts):
            logit_K = self.weight_VK[row].sum(axis=0) / math.sqrt(len(row)) + self.bias_K
            grown_K = np.exp(logit_K - logit_K.max())
            found.append(dict(zip(self.names, (1.0 - grown_K / grown_K.sum()).tolist(), strict=True)))
        return found


def _token_sets(tokenizer: Any, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """The different tokens of every text, ascending; special tokens are among them and tell nothing."""
    tokens = tokenise(tokenizer, texts, MAX_TOKENS)
    return [np.unique(tokens.row(number)) for number in range(len(texts))]
