"""What an index on a server says about its vectors, recorded beside them: whose they are, and how they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from acclimate.core.analyser import Analyser
from acclimate.errors import StorageError, UsageError
from acclimate.text_use import SpaceId

ADOPT_IT = "If they are a model's of ours, adopt it: acclimate index RUN --adopt URL --text-field T --vector-field V"
FORMAT = 2
"""Raised when an older release could misread what a newer one has written."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """Where texts and vectors lie in an index that somebody else made and writes."""

    text_field: str
    vector_field: str
    """A named vector of Qdrant (empty: the only, unnamed one), a column of Postgres."""


@dataclass(frozen=True, slots=True)
class Header:
    """Read before anything else of an index on a server."""

    space: SpaceId
    analyser: Analyser = field(default_factory=Analyser)
    mean_terms: float | None = None
    """Mean number of terms per document, where an engine has to know it before the documents; None: not known yet."""
    adopted: Adopted | None = None
    """None where the index is our own."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any], place: str) -> Header:
        """Read what `to_json` gives.

        Raises:
            StorageError: written by a newer release, or damaged.
        """
        try:
            if values["format"] != FORMAT:
                newer = values["format"] > FORMAT
                raise StorageError(
                    f"{place}: the index has format {values['format']}, this release knows {FORMAT}",
                    fix="Update acclimate." if newer else "Index its documents again, or adopt it again.",
                )
            return Header(
                space=SpaceId(**values["space"]),
                analyser=Analyser(**values["analyser"]),
                mean_terms=values["mean_terms"],
                adopted=Adopted(**values["adopted"]) if values["adopted"] else None,
            )
        except (KeyError, TypeError) as error:
            raise StorageError(
                f"{place}: what is recorded about the index is damaged ({error!r})",
                fix="Move the index over again, or adopt it again.",
            ) from error


def refuse_adopted(place: str, what: str) -> UsageError:
    """Make the error for what an adopted index cannot do."""
    return UsageError(
        f"{place}: {what}, because the index was adopted: it has vectors of its own writer, and no words",
        possible="dense search, with filters",
        fix="Move it to an index of our own for the rest: acclimate index RUN --from … --to …",
    )
