"""Settings of `prepare`."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_at_least, check_fraction
from acclimate.errors import UsageError

AUTO = "auto"
"""Says that the data decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """From raw data to a leak-free dataset."""

    anchor_column: str | None = None
    """Column of the queries, if its name is not one of the known ones."""
    positive_column: str | None = None
    """Column of the documents that answer the queries."""
    label_column: str = AUTO
    """Column of the labels of labelled pairs. auto: a column label or score, if its values look like labels; none: no
    column holds labels."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a file without a header, in order, such as sentence1,sentence2,label."""
    corpus: str | None = None
    """File of further documents, which no pair mentions. Mining and evaluation rank them too."""
    split_by: str = "component"
    """How splits are made. component: splits share no text; query: splits share no query; or the name of a column whose
    values are kept together."""
    test_fraction: float = 0.1
    """Share of the queries that becomes the test split, where none is given: at least 100 queries, at most half."""
    dev_fraction: float = 0.05
    """Share of the training queries that becomes the dev split, where none is given: at most 500 queries."""
    strict_documents: bool = False
    """Also drop training pairs whose document (or one of whose sentences) is in test or dev."""
    strict_near: bool = False
    """Also drop training pairs with a text that is nearly a query (or both sentences) of test or dev."""
    per_label: int | None = None
    """Labelled pairs: use at most this many training pairs per label, drawn evenly."""
    label_min: float | None = None
    """Lowest possible label of labelled pairs; taken from the data if not given."""
    label_max: float | None = None
    """Highest possible label of labelled pairs; taken from the data if not given."""
    min_chars: int = 2
    """Shorter texts are rejected."""

    def __post_init__(self) -> None:
        check_fraction("test_fraction", self.test_fraction)
        check_fraction("dev_fraction", self.dev_fraction)
        check_at_least("min_chars", self.min_chars, 1)
        if self.per_label is not None:
            check_at_least("per_label", self.per_label, 1)
        if (self.anchor_column is None) != (self.positive_column is None):
            raise UsageError("only one of --anchor-column and --positive-column is given", fix="Give both, or neither.")
        if self.label_min is not None and self.label_max is not None and self.label_min >= self.label_max:
            raise UsageError(f"label_min = {self.label_min} is not below label_max = {self.label_max}")
