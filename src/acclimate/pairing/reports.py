"""What `report.json` says of made pairs, field by field."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class SourceRow(TypedDict):
    """One source of pairs."""

    made: int
    """Pairs that it gave, before one in so many was drawn."""
    drawn: int
    """Those that were taken of them."""
    kept: int
    """Those that are in a split."""
    share: float
    """Part of all pairs that are in a split."""
    per_document: float
    """Pairs that it gave for each document: its yield. Of written queries: those kept of a request."""
    splits: dict[str, int]
    dropped: dict[str, int]
    """Why a drawn pair is in no split -> how many."""


class AgreementRow(TypedDict):
    """Two experts, by their files' names."""

    experts: list[str]
    pairs: int
    """Pairs that both have decided on."""
    agreed: float
    kappa: float | None


class UnjudgedReport(TypedDict):
    """Users' queries without judgements, by base and adapted."""

    queries: int
    same_first: float
    """Share of the queries whose first document is the same by both."""
    shared: float
    """Share of the first `depth` documents that both find, on average."""
    depth: int
    timings: NotRequired[dict[str, float]]


class PairsReport(TypedDict):
    """What `pairs` reports."""

    documents: int
    passages: int
    """Those of all documents."""
    ranked: int
    """Those that mining and the proof rank."""
    rejected: int
    """Rows and files that could not be read."""
    pairs: int
    splits: dict[str, int]
    split_by: str
    """`document`, or `passage` where there are few documents."""
    sources: dict[str, SourceRow]
    test: dict[str, int]
    """What made the test's queries -> how many; `real`: users asked them."""
    warnings: list[str]
    llm: NotRequired[dict[str, Any]]
    """The endpoint's model, requests, tokens, cost; how many queries were written, and dropped, and why."""
    experts: NotRequired[dict[str, int]]
    """What they decided -> on how many pairs."""
    agreement: NotRequired[list[AgreementRow]]
    annotate: NotRequired[dict[str, Any]]
    """The file for experts, and how many pairs are in it."""
    real: NotRequired[dict[str, int]]
    """Real queries: how many, judged, and found among the documents."""
    timings: NotRequired[dict[str, float]]
