"""What every input form is turned into: records of two texts, and `RawData`, all that a source holds."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from acclimate.types import Corpus, Kind, Queries, Rejected, Split


@dataclass(frozen=True, slots=True)
class Record:
    """A query and a document judged for it, or a labelled pair of sentences. Texts are normalised.

    Ids are there only where the source has its own (a BEIR folder); elsewhere equal texts get equal ids later.
    """

    source: str
    row: int
    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None
    """A teacher's scores of (positive, *negatives)."""
    label: float | None = None
    """The label as given; only labelled pairs have one."""
    grade: int = 1
    """Judged relevance; above 0 means relevant."""
    split: Split = "train"
    group: str | None = None
    """Value of the column that splits are made by, if any."""
    anchor_id: str | None = None
    positive_id: str | None = None
    made_by: str = ""
    """What made the query, where it was made out of documents (`data.made`); empty where a user has asked it."""

    def rejected(self, reason: str) -> Rejected:
        """This record as a rejected row."""
        return Rejected(self.source, self.row, reason, self.anchor[:200])


@dataclass(slots=True, kw_only=True)
class RawData:
    """All that was read from one source, before anything is dropped or split."""

    kind: Kind
    records: list[Record]
    corpus: Corpus = field(default_factory=dict)
    """Documents that have an id of their own."""
    titles: dict[str, str] = field(default_factory=dict)
    """Text of a document that begins with its title -> the title."""
    unnamed: list[str] = field(default_factory=list)
    """Further documents that have no id yet."""
    queries: Queries = field(default_factory=dict)
    """Queries that have an id of their own."""
    given: frozenset[Split] = frozenset()
    """Splits that the source itself defines; empty for a single file."""
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the user should know about how the source was read; they become warnings."""
    columns: dict[str, list[str]] = field(default_factory=dict)
    """Role -> the columns it was read from; "ignored" -> columns that were not used."""
    label_range: tuple[float, float] | None = None
    """Lowest and highest possible label, where the source states them."""


MAX_CHARS = 1_000_000
"""A longer text is a broken file, not a document; and a line of it would be longer than a line may be."""


class BadRowError(ValueError):
    """One row cannot be used. Never leaves this room: the reader turns it into a `Rejected`."""


def normalise(text: str) -> str:
    """Unicode NFC, line ends as line feeds, no white space at the ends; else the text as it is, because indentation
    and lines are what code and tables consist of, and some tokenizers see them.

    Raises:
        BadRowError: the text holds a lone surrogate, which no UTF-8 file can, or is longer than `MAX_CHARS`.
    """
    if len(text) > MAX_CHARS:
        raise BadRowError(f"text too long ({len(text):,} characters, at most {MAX_CHARS:,})")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRowError("not valid Unicode (a lone surrogate)") from None
        text = unicodedata.normalize("NFC", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.strip()


def folded(text: str) -> str:
    """The text with every run of white space (line ends too) as one space: texts that differ in nothing else are one
    document. For comparison and display; what is kept, encoded and searched is the text as it is."""
    return " ".join(text.split())
