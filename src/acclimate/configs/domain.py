"""Settings of the domain: its vocabulary, which several stages use."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfig:
    """What is special about the domain's texts."""

    lexicon: str | None = None
    """File of the domain's terms: one per line, or a table with a column term, and definition if there.
    Extracted from the corpus against the background if not given."""
    background: str | None = None
    """Texts of other kinds in the same language, against which terms are extracted: a text file, or any data.
    The guard data if not given; without either, the topics of the corpus are told from one another."""
    lexicon_size: int = 1000
    """Terms extracted at most, where no lexicon is given."""

    def __post_init__(self) -> None:
        check_at_least("lexicon_size", self.lexicon_size, 1)
