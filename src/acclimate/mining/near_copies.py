"""Documents that are nearly a positive: another revision of it answers the query just as well, so it is no negative.

Shapes: N queries, C candidates per query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from acclimate.core.same_text import same_text_key
from acclimate.data.near import are_near, hashed_ngrams
from acclimate.mining.mining_input import MiningInput

MOST_TEXTS = 20_000
"""Texts whose n-grams are held at a time: 80 MB of 1,000 characters."""

HASHED_AT_ONCE = 500
"""Texts that are hashed in one pass: fast from a few dozen on, and flat in memory."""


@dataclass(slots=True)
class NearCopies:
    """Finds near-copies by the proof's definition (`data.near`); same texts are no candidates in the first place."""

    source: MiningInput
    _ngrams: dict[int, NDArray[np.uint32]] = field(default_factory=dict)

    def of(
        self, queries: Sequence[str], index_NC: NDArray[np.int64], usable_NC: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Mark the usable candidates that are near-duplicates of one of their query's positives.

        Args:
            queries: [N] texts.
            index_NC: the candidates' places among the documents.
            usable_NC: the candidates to look at.
        """
        near_NC = np.zeros(index_NC.shape, np.bool_)
        candidates = [index_NC[row, usable_NC[row]].tolist() for row in range(len(queries))]
        positives = [self.source.positives[query] for query in queries]
        self._hash({place for places in (*candidates, *positives) for place in places})
        for row in range(len(queries)):
            others = [self._ngrams[place] for place in candidates[row]]
            for positive in positives[row]:
                near_NC[row, usable_NC[row]] |= are_near(self._ngrams[positive], others)
        return near_NC

    def _hash(self, places: set[int]) -> None:
        """Hash those of the documents that are not yet known."""
        if len(self._ngrams) > MOST_TEXTS:
            self._ngrams = {place: self._ngrams[place] for place in places & self._ngrams.keys()}
        new = sorted(places - self._ngrams.keys())
        for start in range(0, len(new), HASHED_AT_ONCE):
            some = new[start : start + HASHED_AT_ONCE]
            keys = [same_text_key(self.source.documents[place]) for place in some]
            self._ngrams.update(zip(some, hashed_ngrams(keys), strict=True))
