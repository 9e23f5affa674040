"""The nouns of feedback: an impression (what a search showed), a mark (what a searcher made of a document)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

RELEVANT, NOT_RELEVANT, CLICK = "relevant", "not_relevant", "click"
EXPLICIT = (RELEVANT, NOT_RELEVANT)
"""Marks that are judgements; a click is a weak sign of one, and a mark of another name is kept and not learned from."""
CUSTOM = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
"""The form of every mark's name."""
MAX_QUERY_CHARACTERS = 10_000
MAX_NAME_CHARACTERS = 1_024
"""The limit of a document's id, and of a user's name."""
ANYBODY = ""
"""The user of marks that name none: all of them together are one user, who counts as one."""

Reason: TypeAlias = Literal[
    "unknown impression",
    "not shown by the impression",
    "another query than the impression's",
    "neither impression nor query",
    "no such document",
    "no name of a mark",
    "too long, or no text",
]
"""Why a mark is refused."""


@dataclass(frozen=True, slots=True)
class Impression:
    """What one search has shown."""

    id: str
    at: float
    """Seconds since 1970, UTC."""
    query: str
    shown: tuple[str, ...]
    """Ids of the documents, the first rank first, as the searcher saw them."""
    adapter: str
    """Content hash of the model that encoded the query; "" where none did."""
    space: str
    """Digest of the space of the document vectors that were searched."""
    epoch: int | None = None
    """Number of the index's last change that the service knew of."""
    pair: int | None = None
    """The upper rank (from 1) of the two neighbours that were put in random order; None: the order was not random."""

    @property
    def propensities(self) -> list[float]:
        """The probability with which each document was shown at its rank: 1 where the order was not random."""
        drawn = () if self.pair is None else (self.pair, self.pair + 1)
        return [0.5 if rank in drawn else 1.0 for rank in range(1, len(self.shown) + 1)]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a searcher made of a document, as it comes in."""

    id: str
    """The document's."""
    mark: str
    """relevant, not_relevant, click, or a name of the user's own."""
    query: str | None = None
    """Not needed beside an impression, whose query counts."""
    impression_id: str | None = None
    user: str | None = None
    at: float | None = None
    """None: now."""


@dataclass(frozen=True, slots=True)
class StoredMark:
    """A mark as it is kept, with what is known of the search that it belongs to."""

    seq: int
    """Its number; later marks have larger ones."""
    at: float
    query: str
    document: str
    mark: str
    user: str
    impression: str | None
    rank: int | None = None
    """Where the document stood, from 1; None without an impression."""
    pair: int | None = None
    """See `Impression`."""
    space: str | None = None
    """That of the impression; None without one."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A mark that was not taken."""

    index: int
    """Its place among those that were sent, from 0."""
    reason: Reason


def problem(mark: Mark) -> Reason | None:
    """Say what is wrong with a mark by itself, without what is stored; None where nothing is."""
    if not CUSTOM.fullmatch(mark.mark):
        return "no name of a mark"
    names = [(mark.id, MAX_NAME_CHARACTERS), (mark.user or "", MAX_NAME_CHARACTERS)]
    texts = [*names, (mark.query or "", MAX_QUERY_CHARACTERS)]
    if not mark.id or any(len(text) > most or not _is_text(text) for text, most in texts):
        return "too long, or no text"
    if mark.impression_id is None and not (mark.query or "").strip():
        return "neither impression nor query"
    return None


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8, and has no NUL in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
