"""Settings of `index`, and of `search` and `evaluate` through an index."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_at_least, check_fraction
from acclimate.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexConfig:
    """An index of documents, which is searched by meaning and by words."""

    index_at: str | None = None
    """Where the index is: a folder, or an address such as qdrant://host:6333/collection; RUN/index if not given."""
    chunk_tokens: int | None = None
    """Cut documents into chunks of at most this many tokens, on sentence borders where there are some. If not given,
    a document is one vector, of as much of it as the model reads."""
    chunk_overlap: int = 32
    """Number of tokens that a chunk shares with the one before, at most."""
    text_field: str | None = None
    """The column, or field of an index that is adopted, that holds the texts; if not given, text, with title before it
    where there is one."""

    vector_field: str = ""
    """What holds the vectors of an index that is adopted: a column of Postgres, or a named vector of Qdrant; not needed
    for Qdrant's vectors without a name."""

    refuse: float = 0.95
    """Share of the questions that the documents do not answer which `answer` shall refuse by their scores, as chosen on
    the dev split; a higher one refuses more of the other questions too, and 0 refuses none."""

    def __post_init__(self) -> None:
        check_fraction("refuse", self.refuse)
        check_at_least("chunk_overlap", self.chunk_overlap, 0)
        if self.chunk_tokens is not None:
            check_at_least("chunk_tokens", self.chunk_tokens, 8)
            if self.chunk_overlap >= self.chunk_tokens:
                raise UsageError(
                    f"chunk_overlap = {self.chunk_overlap}, and chunk_tokens = {self.chunk_tokens}",
                    possible=f"an overlap of 0 to {self.chunk_tokens - 1}",
                )
