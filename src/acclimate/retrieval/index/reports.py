"""What `index` reports, field by field."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class FusionChoice(TypedDict):
    """How the dense and the lexical ranking become one, and how that was chosen."""

    constant: float
    dense_weight: float
    lexical_weight: float
    depth: int
    space: str
    """The digest of the space whose vectors were searched: with others the choice says little."""
    chosen: str
    tried: dict[str, float]
    """Setting -> its NDCG@10 on the dev queries."""


class IndexReport(TypedDict):
    """What `index` did."""

    place: str
    documents: int
    """Documents, or chunks, in the index when it was done."""
    read: int
    """Documents that were read."""
    encoded: int
    relabelled: int
    """Written with new metadata; the text, and so the vector, was there."""
    unchanged: int
    removed: int
    """Chunks that their document does not have any more."""
    deleted: int
    """Documents named to be deleted that were there."""
    rejected: dict[str, int]
    """Reason -> rows that could not be used."""
    rejected_rows: str | None
    """The file that these are in, if there are any."""
    ignored: list[str]
    """Columns that are no metadata."""
    space: dict[str, Any]
    fusion: NotRequired[FusionChoice]
    timings: dict[str, float]
