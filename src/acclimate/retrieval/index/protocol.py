"""What every backend of an index does. tests/retrieval/index/contract.py is the suite that each one passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from acclimate.core.analyser import Analyser
from acclimate.core.filters import Filter
from acclimate.retrieval.index.records import Document, Hit, IndexInfo, Query, Stored, Vectors
from acclimate.text_use import SpaceId


class Index(Protocol):
    """Documents with their vectors, found by meaning, by words, and by metadata.

    What a call has written when it returns is acknowledged: it survives the end of the process, and the next search
    finds it, in every mode. Only the space's own vectors can be written or searched for.
    """

    @property
    def space(self) -> SpaceId:
        """The space of its vectors."""

    @property
    def analyser(self) -> Analyser:
        """How its texts become words."""

    @property
    def state(self) -> str | None:
        """What changes with every change of its documents, whoever makes it; None where that cannot be told."""

    def upsert(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write documents, in place of those that have the same ids: all of a call or, where it fails, none.

        Args:
            documents: every id once.
            vectors: [N, D], unit rows.

        Raises:
            DataError: see `records.check_rows`.
            StorageError: it could not be written; nothing has changed.
        """

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents; return how many of them were there."""

    def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        """Return those of the documents that are there, by id."""

    def search(self, query: Query) -> list[Hit]:
        """Return the documents that answer a query, best first, equal scores by id.

        Raises:
            DataError: a vector that is not of the space.
        """

    def count(self, filter: Filter | None = None) -> int:
        """Return how many documents there are, or pass the filter."""

    def has_pictures(self) -> bool:
        """Whether some document passes `pictures.PICTURES`, told without a look at those that do not."""

    def iterate(self, after: str | None = None) -> Iterator[Stored]:
        """Give all documents in the order of their ids (by code point), from the one that follows `after` on."""

    def info(self) -> IndexInfo:
        """Return what there is to say about it."""

    def close(self) -> None:
        """Put files and connections away; a second call does nothing."""
