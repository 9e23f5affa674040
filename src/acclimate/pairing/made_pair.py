"""`MadePair`: a query that was made, and the passage that it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acclimate.data.made import MADE_BY
from acclimate.data.split import draw

ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class MadePair:
    """One pair."""

    query: str
    positive: str
    """The passage."""
    made_by: str
    """The source: `title`, `heading` .., `written`, or `real` of a query that a user has asked."""
    document: str
    """Id of the document that the passage is of."""
    beside: str = ""
    """Id of the document that the query is of, where that is another one."""
    style: str = ""
    """How a written query was asked for."""

    @property
    def number(self) -> int:
        """A number that depends on both texts alone."""
        return draw(0, "pair", self.query, self.positive)

    @property
    def id(self) -> str:
        """A name that depends on both texts alone, so that an expert's file fits a later making."""
        return f"{self.number:0{ID_DIGITS}x}"

    @property
    def documents(self) -> tuple[str, ...]:
        """The documents that it is made of."""
        return (self.document, self.beside) if self.beside else (self.document,)

    def row(self) -> dict[str, Any]:
        """What a file holds of it, besides its split."""
        row = {"id": self.id, "query": self.query, "positive": self.positive, MADE_BY: self.made_by}
        row |= {"document": self.document}
        return row | {name: value for name in ("beside", "style") if (value := getattr(self, name))}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> MadePair:
        """Read what `row` wrote."""
        return cls(
            row["query"], row["positive"], row[MADE_BY], row["document"], row.get("beside", ""), row.get("style", "")
        )
