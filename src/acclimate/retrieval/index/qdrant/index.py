"""The backend `qdrant`: an index on a Qdrant server, which may be a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.local.qdrant_local import QdrantLocal

from acclimate.core.analyser import Analyser
from acclimate.core.batching import batched
from acclimate.core.filters import Filter
from acclimate.errors import UsageError
from acclimate.retrieval.index.header import Header, refuse_adopted
from acclimate.retrieval.index.pictures import PICTURE, PICTURES, PROJECTION
from acclimate.retrieval.index.qdrant import collections
from acclimate.retrieval.index.qdrant.connection import QdrantPlace, connect, parse_qdrant_url, patiently
from acclimate.retrieval.index.qdrant.filters import path, to_qdrant
from acclimate.retrieval.index.qdrant.points import (
    DENSE,
    ID,
    LEXICAL,
    METADATA,
    point_id,
    to_document,
    to_point,
    vector_of,
)
from acclimate.retrieval.index.qdrant.sparse import query_vector
from acclimate.retrieval.index.records import (
    TIES,
    Document,
    Hit,
    IndexInfo,
    Query,
    Stored,
    Vectors,
    check_rows,
    check_space,
    fused,
    searched_vector,
)
from acclimate.text_use import SpaceId

P = ParamSpec("P")
R = TypeVar("R")

BATCH = 256
BATCH_BYTES = 8_000_000
"""Points of one request, and their texts and vectors; a server takes 32 MB by default."""
READ_IDS = 10_000
EF = 256
"""Candidates of a dense search in the graph, at least; twice the results where that is more."""
MAX_TEXTS = 100_000
"""Different texts of a field that is compared with a text, at most."""
MAX_INDEXED_FIELDS = 64


def open_qdrant(url: str, space: SpaceId | None, analyser: Analyser | None) -> QdrantIndex:
    """Open the index at a url of Qdrant, or make it: see `opening.open_index`."""
    place = parse_qdrant_url(url)
    return QdrantIndex.open(connect(place), place, space, analyser)


def qdrant_beside(url: str, space: SpaceId, analyser: Analyser | None) -> QdrantIndex:
    """Open, or make, the collection of a space at a url of Qdrant, whatever is searched there now."""
    place = parse_qdrant_url(url)
    return QdrantIndex.beside(connect(place), place, space, analyser)


def adopt_qdrant(url: str, header: Header) -> QdrantIndex:
    """Open somebody else's collection as if it were what a header says."""
    place = parse_qdrant_url(url)
    return QdrantIndex.adopting(connect(place), place, header)


class QdrantIndex:
    """Documents as points: a dense vector, a sparse one of BM25's weights, the document as payload.

    A call's points are written in one request, or in several where they are many or long: a failure then leaves those
    of the first requests written, and the same call made again writes the same points.
    """

    def __init__(self, client: QdrantClient, place: QdrantPlace, collection: str, header: Header | None = None) -> None:
        """Open a collection; a header that is not given is read."""
        self.client = client
        self.place = place
        self.collection = collection
        self.header = header or collections.read_header(client, place, collection)
        self._indexed = set(self._ask(client.get_collection, collection).payload_schema)
        self._dense = DENSE if self.header.adopted is None else self.header.adopted.vector_field
        self._distance = models.Distance.DOT
        if self.header.adopted is not None:
            self._distance = collections.check_foreign(client, place, collection, self.header)
        # The in-memory client searches exactly, and warns of settings that are for a graph.
        self._local = isinstance(client._client, QdrantLocal)

    @classmethod
    def open(
        cls, client: QdrantClient, place: QdrantPlace, space: SpaceId | None = None, analyser: Analyser | None = None
    ) -> QdrantIndex:
        """Open the index that a place's name leads to, or make one of the space.

        Raises:
            UsageError: there is none, and no space to make one for; or it is of another space.
            StorageError: the server does not answer; the collection is not ours.
        """
        collection = collections.leads_to(client, place)
        if collection is None:
            if space is None:
                raise UsageError(f"{place}: there is no index", fix="Make one: acclimate index RUN --at URL")
            index = cls.beside(client, place, space, analyser)
            index.publish()
            return index
        index = cls(client, place, collection)
        if space is not None:
            check_space(index.space, space, str(place))
        return index

    @classmethod
    def beside(
        cls, client: QdrantClient, place: QdrantPlace, space: SpaceId, analyser: Analyser | None = None
    ) -> QdrantIndex:
        """Open, or make, the collection of a space, whatever the name leads to now; `publish` lets it lead here."""
        if collections.leads_to(client, place) == place.collection:
            raise collections.taken(place)
        return cls(client, place, collections.make(client, place, space, analyser))

    @classmethod
    def adopting(cls, client: QdrantClient, place: QdrantPlace, header: Header) -> QdrantIndex:
        """Open somebody else's collection as if it were what a header says.

        Raises:
            UsageError: there is none, it has no such vectors, or it is our own.
        """
        collection = collections.leads_to(client, place)
        if collection is None:
            raise UsageError(f"{place}: there is no collection of this name")
        collections.refuse_own(client, place, collection)
        return cls(client, place, collection, header)

    def record(self, header: Header) -> None:
        """Record a header in the collection's metadata."""
        self.header = header
        collections.write_header(self.client, self.place, self.collection, header)

    def sample(self, count: int) -> list[Stored]:
        """Return some documents, drawn by chance."""
        random = models.SampleQuery(sample=models.Sample.RANDOM)
        drawn = self._ask(self.client.query_points, self.collection, random, limit=count, with_payload=[ID]).points
        return self._stored([self._id(point) for point in drawn])

    def publish(self) -> str | None:
        """Let the place's name lead to this collection; return the one that it led to before, if it was another."""
        return collections.point_alias(self.client, self.place, self.collection)

    @property
    def space(self) -> SpaceId:
        return self.header.space

    @property
    def analyser(self) -> Analyser:
        return self.header.analyser

    def upsert(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write documents: see the protocol, and the class for what "all or none" means here."""
        if self.header.adopted is not None:
            raise refuse_adopted(str(self.place), "nothing can be written")
        rows = check_rows(documents, vectors, self.space)
        if not documents:
            return
        terms = [self.analyser.terms(document.text) for document in documents]
        if self.header.mean_terms is None:
            mean = max(float(np.mean([len(found) for found in terms])), 1.0)
            self.record(dataclasses.replace(self.header, mean_terms=mean))
        self._index_fields(documents)
        points = map(to_point, documents, rows, terms, [self.header] * len(documents))
        for some in _requests(points, documents, self.space.dim):
            self._ask(self.client.upsert, self.collection, some, wait=True)

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents; return how many of them were there."""
        if self.header.adopted is not None:
            raise refuse_adopted(str(self.place), "nothing can be removed")
        gone = 0
        for some in batched(ids, READ_IDS):
            points = [point_id(identifier) for identifier in dict.fromkeys(some)]
            found = self._ask(self.client.retrieve, self.collection, points, with_payload=False)
            if not found:
                continue
            there = models.PointIdsList(points=[point.id for point in found])
            self._ask(self.client.delete, self.collection, there, wait=True)
            gone += len(found)
        return gone

    def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        """Return those of the documents that are there, by id."""
        return {stored.document.id: stored for some in batched(ids, BATCH) for stored in self._stored(some)}

    def search(self, query: Query) -> list[Hit]:
        """Return the documents that answer a query, best first, equal scores by id."""
        wanted = [DENSE, LEXICAL] if query.mode == "hybrid" else [DENSE if query.mode == "dense" else LEXICAL]
        if LEXICAL in wanted and self.header.adopted is not None:
            raise refuse_adopted(str(self.place), f"there is no {query.mode} search")
        terms = self.analyser.terms(query.text or "") if LEXICAL in wanted else []
        if not terms:
            wanted = [name for name in wanted if name != LEXICAL]
        chosen = self._filter(query.filter)
        requests = [self._request(name, query, terms, chosen) for name in wanted]
        answers = self._ask(self.client.query_batch_points, self.collection, requests) if requests else []
        rankings: dict[str, dict[str, float]] = {DENSE: {}, LEXICAL: {}}
        for name, answer in zip(wanted, answers, strict=True):
            # A sparse vector without a term in common has no score at all, or 0.
            found = {
                self._id(point): self._score(name, point.score)
                for point in answer.points
                if name == DENSE or point.score > 0
            }
            best = sorted(found, key=lambda identifier: (-found[identifier], identifier))[: query.depth]
            rankings[name] = {identifier: found[identifier] for identifier in best}
        scores = dict(fused(query, rankings[DENSE], rankings[LEXICAL]))
        documents = {document.id: document for some in batched(scores, BATCH) for document in self._documents(some)}
        return [Hit(documents[name], score) for name, score in scores.items() if name in documents]

    def count(self, filter: Filter | None = None) -> int:
        """Return how many documents there are, or pass the filter."""
        chosen = self._filter(filter)
        return int(self._ask(self.client.count, self.collection, count_filter=chosen, exact=True).count)

    def has_pictures(self) -> bool:
        """Whether it holds pictures: not where the server has no index of their fields, of which it makes one."""
        if self.header.adopted is not None:
            return False
        if not self._local:
            fields = self._ask(self.client.get_collection, self.collection).payload_schema
            of_pictures = {path(f"{METADATA}.", name) for name in (PICTURE, PROJECTION)}
            if len(fields) < MAX_INDEXED_FIELDS and not of_pictures <= set(fields):
                return False
        return self.count(PICTURES) > 0

    def iterate(self, after: str | None = None) -> Iterator[Stored]:
        """Give all documents in the order of their ids; the ids are read first, since Qdrant has no such order."""
        ids: list[str] = []
        offset: Any = None
        while True:
            page, offset = self._ask(
                self.client.scroll, self.collection, limit=READ_IDS, offset=offset, with_payload=[ID]
            )
            ids += [self._id(point) for point in page]
            if offset is None:
                break
        for some in batched(sorted(name for name in ids if after is None or name > after), BATCH):
            found = {stored.document.id: stored for stored in self._stored(some)}
            yield from (found[name] for name in some if name in found)

    @property
    def state(self) -> str | None:
        """None: others write there too, and nothing counts their changes."""
        return None

    def info(self) -> IndexInfo:
        """Return what there is to say about it."""
        details: dict[str, Any] = {"collection": self.collection, "mean_terms": self.header.mean_terms}
        if self.header.adopted is not None:
            details["adopted"] = dataclasses.asdict(self.header.adopted)
        return IndexInfo("qdrant", str(self.place), self.count(), self.space, details)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self.client.close()

    def _ask(self, call: Callable[P, R], *args: P.args, **settings: P.kwargs) -> R:
        return patiently(self.place, call, *args, **settings)

    def _filter(self, filter: Filter | None) -> models.Filter | None:
        prefix = f"{METADATA}." if self.header.adopted is None else ""
        return None if filter is None else to_qdrant(filter, prefix, self._texts_of)

    def _request(
        self, name: str, query: Query, terms: Sequence[str], chosen: models.Filter | None
    ) -> models.QueryRequest:
        limit = query.depth + TIES
        if name == LEXICAL:
            sparse = query_vector(terms)
            return models.QueryRequest(
                query=models.SparseVector(indices=sparse.indices, values=sparse.values),
                using=LEXICAL, filter=chosen, limit=limit, with_payload=[ID],
            )  # fmt: skip
        vector = searched_vector(query, self.space)
        params = None if self._local else models.SearchParams(hnsw_ef=max(EF, 2 * limit))
        return models.QueryRequest(
            query=vector.tolist(), using=self._dense or None, filter=chosen, limit=limit, params=params,
            with_payload=[ID],
        )  # fmt: skip

    def _score(self, name: str, score: float) -> float:
        """The product of two unit vectors out of what the server gives, which in Euclid's metric is their distance."""
        return 1 - score**2 / 2 if name == DENSE and self._distance == models.Distance.EUCLID else score

    def _id(self, point: models.Record | models.ScoredPoint) -> str:
        payload: Mapping[str, Any] = point.payload or {}
        return str(point.id) if self.header.adopted is not None else str(payload[ID])

    def _points(self, ids: Iterable[str], **what: Any) -> list[models.Record]:
        if self.header.adopted is None:
            points: list[int | str] = [point_id(identifier) for identifier in ids]
        else:
            points = [int(identifier) if identifier.isdigit() else identifier for identifier in ids]
        return self._ask(self.client.retrieve, self.collection, points, **what)

    def _documents(self, ids: Iterable[str]) -> list[Document]:
        return [to_document(point, self.header) for point in self._points(ids, with_payload=True)]

    def _stored(self, ids: Iterable[str]) -> list[Stored]:
        points = self._points(ids, with_payload=True, with_vectors=[self._dense] if self._dense else True)
        return [Stored(to_document(point, self.header), vector_of(point, self._dense)) for point in points]

    def _texts_of(self, key: str) -> list[str]:
        """The different texts in a field of the payload."""
        answer = self._ask(self.client.facet, self.collection, key, limit=MAX_TEXTS, exact=True)
        if len(answer.hits) == MAX_TEXTS:
            raise UsageError(
                f"the field {key} has {MAX_TEXTS:,} texts or more, too many to compare with a bound on Qdrant",
                fix="Keep it as a number (a date as days or seconds), or search for the texts by `in`.",
            )
        return [hit.value for hit in answer.hits if isinstance(hit.value, str)]

    def _index_fields(self, documents: Sequence[Document]) -> None:
        """Let the server index new fields by the kind of their first value; conditions on another kind are still right,
        only slower."""
        if self._local:
            return
        first = {name: value for document in reversed(documents) for name, value in document.metadata.items()}
        for name, value in first.items():
            key = path(f"{METADATA}.", name)
            if key in self._indexed or len(self._indexed) >= MAX_INDEXED_FIELDS:
                continue
            item = value[0] if isinstance(value, tuple) else value
            schema = _SCHEMAS[type(item)]
            self._ask(self.client.create_payload_index, self.collection, key, schema, wait=True)
            self._indexed.add(key)


_SCHEMAS = {
    str: models.PayloadSchemaType.KEYWORD,
    bool: models.PayloadSchemaType.BOOL,
    int: models.PayloadSchemaType.FLOAT,
    float: models.PayloadSchemaType.FLOAT,
}
"""Numbers are all indexed as floats: an index of whole numbers would not find the fractions of the same field."""


def _requests(
    points: Iterable[models.PointStruct], documents: Sequence[Document], dim: int
) -> Iterator[list[models.PointStruct]]:
    """Points by requests of `BATCH` points and about `BATCH_BYTES` bytes."""
    batch: list[models.PointStruct] = []
    size = 0
    for point, document in zip(points, documents, strict=True):
        # A number takes about ten characters of JSON, a character of text up to three bytes.
        own = 10 * dim + 3 * len(document.text)
        if batch and (len(batch) == BATCH or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += own
    if batch:
        yield batch
