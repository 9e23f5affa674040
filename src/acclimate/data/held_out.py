"""What the training must not be told of dev and test: one rule, for every role that a text can have in a training.

A text that is a dev or test query is in no training role. A document that is judged for one may be a positive of a
training query, as in practice (the collection is the same before and after; `strict_documents` removes such rows), and
it may be mined: mining sees no judgement of dev or test, as it sees none of the queries to come (docs/proof.md has what
the other choice does). It is no given negative, no retained text, and in no weak pair. Of labelled pairs, the pair is
held out for training rows (a sentence may come again with another one), and both sentences for the other roles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias

from acclimate.core.same_text import same_text_key

TrainingRole: TypeAlias = Literal["anchor", "positive", "negative", "mined", "retained", "weak"]

JUDGED_EXCLUDED: Mapping[TrainingRole, bool] = {
    "anchor": False,
    "positive": False,
    "negative": True,
    "mined": False,
    "retained": True,
    "weak": True,
}
"""Training role -> whether it excludes what is judged for dev and test queries, besides these queries themselves.
negative: given, or judged not relevant; mined: a hard negative out of the corpus; retained: a text whose vector is kept
(`retain_data`); weak: part of a pair made from the corpus."""


class HeldOut:
    """The held-out texts of one or several datasets, by the definition of "the same text".

    Args:
        key: gives what two texts have in common that are the same.
    """

    def __init__(self, key: Callable[[str], str] = same_text_key) -> None:
        self._key = key
        self.queries: set[str] = set()
        """Keys of dev and test queries."""
        self.judged: set[str] = set()
        """Keys of what is judged for them, whatever the grade, and of the sentences of dev and test pairs."""
        self.pairs: set[frozenset[str]] = set()
        """Keys of both sentences of dev and test pairs."""

    def add_queries(self, texts: Iterable[str]) -> None:
        """Hold out queries."""
        self.queries.update(map(self._key, texts))

    def add_judged(self, texts: Iterable[str]) -> None:
        """Hold out documents that are judged for held-out queries."""
        self.judged.update(map(self._key, texts))

    def add_pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Hold out labelled pairs, in either order."""
        for pair in pairs:
            keys = frozenset(map(self._key, pair))
            self.pairs.add(keys)
            self.judged |= keys

    def update(self, other: HeldOut) -> None:
        """Hold out all that another one holds out."""
        self.queries |= other.queries
        self.judged |= other.judged
        self.pairs |= other.pairs

    def excludes(self, text: str, role: TrainingRole) -> bool:
        """Whether a text is kept out of a training role: the one rule.

        Args:
            text: as it stands in the data.
            role: what the training would use it as.
        """
        key = self._key(text)
        return key in self.queries or (JUDGED_EXCLUDED[role] and key in self.judged)

    def excludes_row(self, anchor: str, positive: str) -> bool:
        """Whether a training row of two texts is kept out: either is a held-out query, or both are a held-out pair."""
        keys = frozenset((self._key(anchor), self._key(positive)))
        return not keys.isdisjoint(self.queries) or keys in self.pairs
