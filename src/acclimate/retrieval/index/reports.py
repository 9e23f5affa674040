"""What `index` reports, field by field."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class RefusalChoice(TypedDict):
    """Below which score a question is not answered, and how that was chosen on the dev split.

    A question's score is the cosine of its best document. It is not answered where that is no higher than the
    threshold.
    """

    threshold: float | None
    """None: there were too few dev queries to choose one."""
    model: str
    """What encoded the queries (`of_run.query_model`): of another model the scores are others."""
    wanted: float
    """The least share of questions without an answer that shall be refused …"""
    confidence: float
    """… and how sure that is, for questions like those of the dev split."""
    queries: int
    """Dev queries."""
    refused: float
    """Which share of them is refused once their relevant documents are taken away."""
    answered: float
    """Which share of them is not refused while these are there."""
    chosen: str


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
    refusal: NotRequired[RefusalChoice]
    """Absent in records of before there were answers."""


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
    pictures: NotRequired[int]
    """Pictures among the documents of the index when it was done; only `index --images` says so."""
    twice: NotRequired[int]
    """Pictures that were read, and were the same as an earlier one; likewise."""
    stale: NotRequired[int]
    """Pictures in the index whose vectors an earlier projection has made; likewise."""
    timings: dict[str, float]
