"""A request's documents in parts, so that writing a large one takes little more memory than writing a small one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from acclimate.errors import AcclimateError
from acclimate.retrieval.index.records import Document
from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import as_service_error

WRITTEN_DOCUMENTS, WRITTEN_CHARACTERS = 128, 200_000
"""What is encoded and written at once, at most, unless one document has more: the memory that a large request takes
beside its body, and what an error can cost."""


def parts_of(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    """The documents in order, some at a time."""
    start = characters = 0
    for place, document in enumerate(documents):
        characters += len(document.text)
        if place > start and (place - start >= WRITTEN_DOCUMENTS or characters > WRITTEN_CHARACTERS):
            yield documents[start:place]
            start, characters = place, len(document.text)
    if start < len(documents):
        yield documents[start:]


def partly_stored(error: AcclimateError, stored: int, count: int) -> ServiceError:
    """The same error, with what it has left behind."""
    failure = as_service_error(error)
    return ServiceError(
        f"{failure.found}; of {count:,} documents the first {stored:,} are stored, the others are not",
        status=failure.status,
        field=failure.field,
        retry_after_s=failure.retry_after_s,
        possible=failure.possible,
        fix=failure.fix or "Send the others again.",
    )
