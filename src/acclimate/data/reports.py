"""What `report.json` says of data that was prepared: a part of the reports of the run, field by field."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class PreparedReport(TypedDict):
    """What `prepare` reports."""

    source: str
    kind: str
    counts: dict[str, Any]
    """Queries, documents, examples; the same of each split; rejected rows by reason."""
    splits: dict[str, str]
    """Split -> how it came about."""
    warnings: list[str]
    made_by: NotRequired[dict[str, dict[str, int]]]
    """Split -> what made its queries -> how many; of data whose queries were made out of documents."""
    timings: NotRequired[dict[str, float]]


class WeakReport(TypedDict):
    """What `weak` reports."""

    pairs: dict[str, int]
    """Kind of weak pair -> how many."""
    timings: NotRequired[dict[str, float]]
