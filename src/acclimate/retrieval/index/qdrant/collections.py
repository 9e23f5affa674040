"""Collections of a Qdrant server: made, found by their alias, with what is recorded about them.

The name in a url is an alias. It leads to a collection whose name ends in the first characters of its space's digest,
so that vectors of another space fill a second collection, and the alias is moved on in one step when it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qdrant_client import QdrantClient, models

from acclimate.core.analyser import Analyser
from acclimate.errors import StorageError, UsageError
from acclimate.retrieval.index.header import ADOPT_IT, Header
from acclimate.retrieval.index.qdrant.connection import QdrantPlace, patiently
from acclimate.retrieval.index.qdrant.points import DENSE, LEXICAL
from acclimate.text_use import SpaceId

RECORDED_AS = "acclimate"
"""The key of a collection's metadata that is ours."""
LINKS = 16
EF_CONSTRUCT = 200
"""The graph's links per point and its candidates while it is built: HNSW's M and efConstruction."""


def leads_to(client: QdrantClient, place: QdrantPlace) -> str | None:
    """The collection that a place's name leads to, by an alias or as its own name; None where there is none."""
    aliases = patiently(place, client.get_aliases).aliases
    target = next((alias.collection_name for alias in aliases if alias.alias_name == place.collection), None)
    if target is not None or not patiently(place, client.collection_exists, place.collection):
        return target
    return place.collection


def make(client: QdrantClient, place: QdrantPlace, space: SpaceId, analyser: Analyser | None) -> str:
    """Make the collection of a space, if it is not there, and return its name."""
    name = f"{place.collection}.{space.digest[:12]}"
    if patiently(place, client.collection_exists, name):
        return name
    header = Header(space, analyser or Analyser())
    patiently(
        place,
        client.create_collection,
        name,
        vectors_config={
            DENSE: models.VectorParams(size=space.dim, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16)
        },
        sparse_vectors_config={LEXICAL: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        hnsw_config=models.HnswConfigDiff(m=LINKS, ef_construct=EF_CONSTRUCT),
        metadata=recorded(header),
    )
    return name


def point_alias(client: QdrantClient, place: QdrantPlace, collection: str) -> str | None:
    """Let a place's name lead to a collection, in one step; return the collection that it led to before.

    Raises:
        UsageError: the name is a collection's own, so that it cannot be an alias.
    """
    before = leads_to(client, place)
    if before == collection:
        return None
    if before == place.collection:
        raise taken(place)
    name = place.collection
    steps: list[models.AliasOperations] = []
    if before is not None:
        steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name)))
    steps.append(
        models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=name))
    )
    patiently(place, client.update_collection_aliases, steps)
    return before


def taken(place: QdrantPlace) -> UsageError:
    """Make the error for a name that cannot be an alias."""
    return UsageError(
        f"{place}: the name is that of a collection that is not ours to fill", fix="Choose another name in the url."
    )


def read_header(client: QdrantClient, place: QdrantPlace, collection: str) -> Header:
    """Read what is recorded about a collection.

    Raises:
        StorageError: nothing is, or it is damaged, or of a newer release.
    """
    metadata: Mapping[str, Any] = patiently(place, client.get_collection, collection).config.metadata or {}
    if RECORDED_AS not in metadata:
        raise StorageError(
            f"{place}: the collection does not say which model its vectors are of",
            fix=ADOPT_IT,
        )
    try:
        values = json.loads(metadata[RECORDED_AS])
    except (TypeError, json.JSONDecodeError):
        values = {}
    return Header.from_json(values, str(place))


def refuse_own(client: QdrantClient, place: QdrantPlace, collection: str) -> None:
    """Refuse to adopt a collection that we made; one that was adopted may be adopted again.

    Raises:
        UsageError: it is our own.
    """
    metadata = patiently(place, client.get_collection, collection).config.metadata or {}
    if RECORDED_AS in metadata and read_header(client, place, collection).adopted is None:
        raise UsageError(f"{place}: the index is our own, there is nothing to adopt", fix="Search it as it is.")


def check_foreign(client: QdrantClient, place: QdrantPlace, collection: str, header: Header) -> models.Distance:
    """Return the distance of a collection that somebody else made.

    Raises:
        UsageError: it has no vectors of that name, of other dimensions, or with a distance that we cannot use.
    """
    adopted = header.adopted
    assert adopted is not None
    vectors = patiently(place, client.get_collection, collection).config.params.vectors
    named = {"": vectors} if isinstance(vectors, models.VectorParams) else dict(vectors or {})
    found = named.get(adopted.vector_field)
    if found is None:
        names = ", ".join(repr(name) for name in named)
        raise UsageError(
            f"{place}: there are no vectors {adopted.vector_field!r}", possible=f"{names} ('' has no name)"
        )
    if found.size != header.space.dim or found.multivector_config is not None:
        raise UsageError(
            f"{place}: the vectors {adopted.vector_field!r} have {found.size} dimensions"
            + (", several a document" if found.multivector_config is not None else ""),
            possible=f"{header.space.dim}, the model's, one vector a document",
        )
    if found.distance == models.Distance.MANHATTAN:
        raise UsageError(f"{place}: the vectors' distance is Manhattan", possible="Cosine, Dot, Euclid")
    return found.distance


def write_header(client: QdrantClient, place: QdrantPlace, collection: str, header: Header) -> None:
    """Record what is to say about a collection."""
    patiently(place, client.update_collection, collection, metadata=recorded(header))


def recorded(header: Header) -> dict[str, str]:
    """A header as metadata of a collection: one text, since a null in metadata tells Qdrant to drop its key."""
    return {RECORDED_AS: json.dumps(header.to_json())}
