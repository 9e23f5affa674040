"""Pictures as documents of an index: how they are told from texts, and how they are written.

A picture's vector is made of the picture, by a projection. Its text, a name or a caption, is for people and for the
search by words, so nothing may encode it in the picture's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np

from acclimate.core.batching import batched
from acclimate.core.filters import And, Eq, Exists, Filter, Not
from acclimate.retrieval.index.feeding import Fed
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Document, Stored, Vectors

PICTURE, PROJECTION, FILE, CLASS = "picture", "projection", "file", "class"
"""Fields of a picture's metadata: sha256 of the bytes that are kept, what made the vector, the name in the source, and
the class where there is one."""
PICTURES: Filter = And((Exists(PICTURE), Exists(PROJECTION)))
"""Passes pictures only. One field would not do: texts about products often have one that is called picture."""
TEXTS: Filter = Not(PICTURES)
DIGEST_CHARS = 12
"""Digits of the projection's digest that a picture's metadata has."""
BATCH_PICTURES = 256
"""Pictures that are encoded and acknowledged together."""
IS_PICTURE = "its id is that of a picture (acclimate index RUN --images writes these)"
"""Why something that has only a text is not written under such an id: its text would be encoded."""
_PREFIX = "picture:"
_ID = re.compile(rf"{_PREFIX}([0-9a-f]{{64}})")
_BEYOND = f"{_PREFIX}g"
"""Comes after the ids of all pictures."""


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture that shall be in an index."""

    document: Document
    data: bytes
    """What is kept of it."""
    number: int
    """Its place in the source."""


Encode: TypeAlias = Callable[[Sequence[NewPicture]], Vectors]
"""Pictures -> unit vectors [N, D]."""


def picture_document(sha256: str, text: str, *, file: str, projection: str, group: str | None) -> Document:
    """Make the document of a picture.

    Args:
        sha256: of the bytes that are kept.
        text: what is said about it.
        file: its name in the source.
        projection: what `made_by` says of it; by another one a picture is a changed document.
        group: the name of its class.
    """
    of_class = {} if group is None else {CLASS: group}
    metadata = {PICTURE: sha256, FILE: file, **of_class, PROJECTION: projection}
    return Document(picture_id(sha256), text, metadata)


def picture_id(sha256: str) -> str:
    """Return the id of a picture's document."""
    return f"{_PREFIX}{sha256}"


def sha256_of(identifier: str) -> str | None:
    """Return which picture an id is of; None where it is of none."""
    found = _ID.fullmatch(identifier)
    return None if found is None else found[1]


def is_picture(document: Document) -> bool:
    """Whether a document is a picture: its id and its metadata say so, and say the same."""
    own = sha256_of(document.id)
    return own is not None and document.metadata.get(PICTURE) == own and PROJECTION in document.metadata


def made_by(digest: str) -> str:
    """Return what a picture's metadata says of the projection that has this digest."""
    return digest[:DIGEST_CHARS]


def of_another(projection: str) -> Filter:
    """Return the filter that passes pictures whose vectors another projection has made."""
    return And((PICTURES, Not(Eq(PROJECTION, projection))))


def among_texts(index: Index, filter: Filter | None) -> Filter | None:
    """Return a filter that passes the texts that a filter passes; the same one where an index holds no pictures."""
    return both(TEXTS, filter) if index.has_pictures() else filter


def both(first: Filter, other: Filter | None) -> Filter:
    """Return a filter that passes what both pass; no filter passes all."""
    return first if other is None else And((first, other))


def first_texts(index: Index, most: int) -> list[Stored]:
    """Return about the first documents that are texts, without reading through the pictures."""
    found: list[Stored] = []
    for stored in islice(index.iterate(), most):
        if sha256_of(stored.document.id) is not None:
            return found + list(islice(index.iterate(_BEYOND), most - len(found)))
        found.append(stored)
    return found


def feed_pictures(
    index: Index,
    pictures: Iterable[NewPicture],
    keep: Callable[[str, bytes], None],
    encode: Encode,
    advance: Callable[[float], None] = lambda _: None,
) -> Fed:
    """Write pictures, in place of those with the same ids; every batch that is written is acknowledged.

    Args:
        index: of the projection's space.
        pictures: each once.
        keep: given the sha256 and the bytes of a picture, before its document is written.
        encode: gives the vectors of those that are not there as the same projection has made them.
        advance: told of each batch how many pictures it had.

    Returns:
        What was done.

    Raises:
        DataError: a document that no index takes.
        StorageError: the index cannot be written, or the bytes cannot be kept.
    """
    fed = Fed()
    for batch in batched(pictures, BATCH_PICTURES):
        known = index.get([one.document.id for one in batch])
        for one in batch:  # of those that are there, too: somebody may have deleted the file
            keep(str(one.document.metadata[PICTURE]), one.data)
        new = [one for one in batch if not _is_made(one.document, known.get(one.document.id))]
        old = [one.document for one in batch if _is_made(one.document, known.get(one.document.id))]
        relabelled = [document for document in old if known[document.id].document != document]
        documents = [*(one.document for one in new), *relabelled]
        if documents:
            vectors = [*(encode(new) if new else ()), *(known[document.id].vector for document in relabelled)]
            index.upsert(documents, np.stack(vectors))
        fed.documents += len(batch)
        fed.encoded += len(new)
        fed.relabelled += len(relabelled)
        fed.unchanged += len(old) - len(relabelled)
        advance(len(batch))
    return fed


def _is_made(document: Document, there: Stored | None) -> bool:
    """Whether the vector that is there is this picture's by this projection."""
    return (
        there is not None
        and is_picture(there.document)
        and there.document.metadata[PROJECTION] == document.metadata[PROJECTION]
    )
