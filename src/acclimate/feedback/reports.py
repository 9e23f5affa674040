"""What a refresh reports of its data, its steps and its judgement, field by field."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class LearnedFrom(TypedDict):
    """What a refresh learns from, and is judged by."""

    marks: dict[str, int]
    """What the marks were used as, or why they were not."""
    not_used: dict[str, int]
    """Reason -> labels that are neither learned from nor judged by."""
    rows: int
    """Rows of feedback."""
    judged_rows: int
    """Those that somebody has judged; the others rest on clicks."""
    users: int
    replay: int
    """The run's own rows beside them."""
    later_queries: int
    later_users: int
    later_clicked: int
    """Later queries that rest on clicks alone."""
    gate_queries: int
    clicks: str
    """Whether clicks are corrected for their places."""
    new_documents: int
    """Documents of the index that the run's corpus lacks: they join mining."""
    negatives_age_days: float | None
    """How old the run's own mined negatives are; those of the refresh are new. None: there are none."""
    learning_rate: float
    """Peak of the training to come."""
    timings: NotRequired[dict[str, float]]


class StepsReport(TypedDict):
    """How the rows were laid out."""

    steps: int
    batch_size: int
    feedback_rows: int
    """Over all steps; a row counts each time."""
    replay_rows: int
    most_of_one_user: int
    """Rows of a step that one user has a part in, at most."""
    timings: NotRequired[dict[str, float]]


class Judged(TypedDict):
    """How a candidate did against the version in use."""

    before: str
    version: str
    promotes: bool
    reason: str
    gate: dict[str, Any]
    guard: list[dict[str, Any]]
    later: dict[str, Any]
    test: dict[str, Any]
    """Measured after the decision, of which it is no part."""
    confidence: float
    timings: NotRequired[dict[str, float]]
