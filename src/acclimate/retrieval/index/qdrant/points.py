"""A document as a point of Qdrant, and back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from acclimate.core.filters import Metadata, Scalar, Value
from acclimate.retrieval.index.header import Adopted, Header
from acclimate.retrieval.index.qdrant.filters import field_name, is_whole, payload_name
from acclimate.retrieval.index.qdrant.sparse import document_vector
from acclimate.retrieval.index.records import Document, Vectors

DENSE = "dense"
LEXICAL = "lexical"
ID = "id"
METADATA = "metadata"
NAMESPACE = uuid.UUID("6f1d2f0e-5d0b-5c55-9c55-acc11a7e0001")
"""Point ids are UUIDv5 in it, so that writing a document twice writes one point."""


def point_id(identifier: str) -> str:
    """The id of a document's point: Qdrant's own are UUIDs or numbers."""
    return str(uuid.uuid5(NAMESPACE, identifier))


def to_point(document: Document, vector: Vectors, terms: Sequence[str], header: Header) -> models.PointStruct:
    """Make a document's point.

    Args:
        document: a document.
        vector: [D].
        terms: of its text.
        header: of the index; `mean_terms` is known.
    """
    sparse = document_vector(terms, header.mean_terms or 1.0)
    return models.PointStruct(
        id=point_id(document.id),
        vector={
            DENSE: vector.tolist(),
            LEXICAL: models.SparseVector(indices=sparse.indices, values=sparse.values),
        },
        payload={
            ID: document.id,
            "text": document.text,
            METADATA: {payload_name(field): _to_payload(value) for field, value in document.metadata.items()},
            "parent": document.parent,
            "start": document.start,
            "end": document.end,
        },
    )


def to_document(point: models.Record | models.ScoredPoint, header: Header) -> Document:
    """Read a point's document; of an adopted index, whose points are somebody else's, the id is the point's own."""
    payload: Mapping[str, Any] = point.payload or {}
    if header.adopted is not None:
        return Document(
            str(point.id), str(payload.get(header.adopted.text_field) or ""), _foreign(payload, header.adopted)
        )
    metadata = {field_name(name): _from_payload(value) for name, value in payload[METADATA].items()}
    return Document(payload[ID], payload["text"], metadata, payload["parent"], payload["start"], payload["end"])


def vector_of(point: models.Record, name: str) -> Vectors:
    """A point's vector of a name, or its only one, [D]."""
    vectors: Any = point.vector
    return np.asarray(vectors[name] if isinstance(vectors, Mapping) else vectors, np.float32)


def _to_payload(value: Value) -> Any:
    if isinstance(value, tuple):
        return [_to_payload(item) for item in value]
    # So that equality of large numbers is exact: see `filters`.
    return int(value) if isinstance(value, float) and is_whole(value) else value


def _from_payload(value: Any) -> Value:
    return tuple(value) if isinstance(value, list) else value


def _foreign(payload: Mapping[str, Any], adopted: Adopted) -> Metadata:
    """What can be metadata of somebody else's payload: values, and lists of values."""
    found: dict[str, Value] = {}
    for name, value in payload.items():
        if name == adopted.text_field or not name:
            continue
        items = value if isinstance(value, list) else [value]
        if items and all(isinstance(item, Scalar) for item in items):
            found[name] = _from_payload(value)
    return found
