"""Settings of one dataset: a table of `[[datasets]]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from acclimate.configs.checks import check_above
from acclimate.configs.objective import Loss
from acclimate.errors import UsageError

MAX_NAME_CHARS = 64
PROMPTS = ("query_prompt", "instruction", "document_prompt")
"""The fields that hold a task's prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """A dataset and its task. A setting that is not given here is that of the run."""

    source: str
    """A file of pairs, a BEIR folder, or a hub id."""
    name: str | None = None
    """Name of its task, which names its folder RUN/tasks/NAME and its prompts; the last part of the source if not
    given."""
    weight: float = 1.0
    """Factor of the task's loss, where several tasks are trained together."""
    loss: Loss | None = None
    """The task's loss; that of [objective] if not given. The settings below replace those of the same name
    elsewhere."""
    query_prompt: str | None = None
    """Put before every query of this task."""
    instruction: str | None = None
    """The task in words, put into the model's own query prompt (see the run's instruction)."""
    document_prompt: str | None = None
    """Put before every document of this task."""
    limit: int | None = None
    """Use at most this many of its queries (or labelled pairs)."""
    anchor_column: str | None = None
    """Column of the queries."""
    positive_column: str | None = None
    """Column of the documents that answer them."""
    label_column: str = ""
    """Column of the labels; auto or none as for a run, whose setting it is if this is empty."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a file without a header."""
    corpus: str | None = None
    """File of further documents."""
    split_by: str | None = None
    """How splits are made: component, query, or the name of a column."""
    per_label: int | None = None
    """At most this many training pairs per label."""
    label_min: float | None = None
    """Lowest possible label."""
    label_max: float | None = None
    """Highest possible label."""

    def __post_init__(self) -> None:
        check_above("weight", self.weight, 0.0)
        if self.instruction is not None and self.query_prompt is not None:
            raise UsageError(f"the dataset {self.task} has an instruction and a query_prompt", fix="Give one of them.")
        if not re.fullmatch(r"[\w-][\w.-]*", self.task) or len(self.task) > MAX_NAME_CHARS:
            raise UsageError(
                f"the name {self.task!r} of the dataset {self.source!r} cannot be that of a folder",
                possible=f"up to {MAX_NAME_CHARS} letters, digits, - _ and .",
            )

    @property
    def task(self) -> str:
        """The task's name."""
        return self.name if self.name is not None else re.sub(r"[^\w.-]+", "-", Path(self.source).stem)

    def overrides(self) -> dict[str, object]:
        """The settings given here, by their names in the run's settings."""
        not_of_a_run = ("source", "name", "weight")
        values = {item.name: (getattr(self, item.name), item.default) for item in fields(self)}
        return {
            name: value for name, (value, default) in values.items() if value != default and name not in not_of_a_run
        }
