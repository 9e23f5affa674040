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
        for row, query in enumerate(queries):
            if len(self._ngrams) > MOST_TEXTS:
                self._ngrams.clear()
            positives = [self._of(place) for place in self.source.positives[query]]
            for column in np.flatnonzero(usable_NC[row]).tolist():
                candidate = self._of(int(index_NC[row, column]))
                near_NC[row, column] = any(are_near(positive, candidate) for positive in positives)
        return near_NC

    def _of(self, place: int) -> NDArray[np.uint32]:
        found = self._ngrams.get(place)
        if found is None:
            found = self._ngrams[place] = hashed_ngrams(same_text_key(self.source.documents[place]))
        return found
