"""Settings of the domain: its vocabulary, which several stages use."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_at_least
from acclimate.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfig:
    """The domain's vocabulary."""

    lexicon: str | None = None
    """File of the domain's terms: one per line, or a table with a column term and, optionally, definition. If not
    given, terms are extracted from the corpus."""
    background: str | None = None
    """Out-of-domain texts in the same language (a text file, or any data): a term is what the corpus uses more often
    than they do. The guard data if not given; without either, the topics of the corpus are compared with each other."""
    lexicon_size: int = 1000
    """Largest number of terms extracted, where no lexicon is given."""

    def __post_init__(self) -> None:
        check_at_least("lexicon_size", self.lexicon_size, 1)
        if self.lexicon is not None and self.background is not None:
            raise UsageError(
                f"the terms are those of the lexicon {self.lexicon}: nothing is compared with the background "
                f"{self.background}",
                fix="Give one of them, and none for the other.",
            )
