"""Documents of an index: written, read, listed, deleted. What is acknowledged is on disk, and every search finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from acclimate.data.texts import typed_text
from acclimate.errors import AcclimateError
from acclimate.retrieval.index.pictures import IS_PICTURE, sha256_of
from acclimate.retrieval.index.records import Document, Vectors, metadata_of, problem
from acclimate.serve.answers import hash_headers, named_hash, remaining_s, space_of
from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import json_response
from acclimate.serve.schemas import DeleteDocumentsRequest, DocumentIn, Id, Name, PutDocumentsRequest
from acclimate.serve.site import Site, site_of
from acclimate.serve.strict_json import StrictRoute

router = APIRouter(route_class=StrictRoute, tags=["documents"])
MAX_PAGE = 1000


@router.put("/v1/documents", summary="Write documents")
async def put_documents(request: Request, body: PutDocumentsRequest) -> Response:
    """Write documents in place of those with the same ids. One whose text has not changed is not encoded again."""
    site = site_of(request)
    site.check_writable()
    _check_count(site, "documents", len(body.documents))
    index = site.index(body.index)
    documents = [_document(one, place) for place, one in enumerate(body.documents)]
    _check_ids([one.id for one in documents], "documents")
    pinned = site.service.registry.pin(index.model)
    loop = asyncio.get_running_loop()

    def encode(texts: Sequence[str]) -> Vectors:
        coming = site.service.engine.embed(
            texts, pinned=pinned, role="document", task=index.task, deadline_s=remaining_s(request)
        )
        vectors: Vectors = np.asarray(asyncio.run_coroutine_threadsafe(coming, loop).result().vectors)
        return vectors

    done = await index.write(documents, encode, space_of(pinned.served, index.task))
    counts = {name: getattr(done, name) for name in ("documents", "encoded", "relabelled", "unchanged")}
    named = named_hash(pinned)
    return json_response({"index": index.name, **counts, "acclimate": named}, headers=hash_headers(named))


@router.delete("/v1/documents", summary="Delete documents")
async def delete_documents(request: Request, body: DeleteDocumentsRequest) -> Response:
    """Remove documents, and the chunks of those that were cut; ids that are not there are no error."""
    site = site_of(request)
    site.check_writable()
    _check_count(site, "ids", len(body.ids))
    _check_ids(body.ids, "ids")
    index = site.index(body.index)
    return json_response({"index": index.name, "deleted": await index.delete(body.ids)})


@router.get("/v1/documents", summary="List documents")
async def list_documents(
    request: Request,
    index: Name | None = None,
    after: Id | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> Response:
    """Some documents in the order of their ids, from the one that follows `after` on; `next` is where to go on."""
    found = site_of(request).index(index)
    documents, count = await found.page(after, limit)
    return json_response(
        {
            "index": found.name,
            "count": count,
            "documents": [shown(one.document) for one in documents],
            "next": documents[-1].document.id if len(documents) == limit else None,
        }
    )


@router.get("/v1/documents/{id:path}", summary="One document")
async def get_document(request: Request, id: Id, index: Name | None = None) -> Response:
    """One document, by its id."""
    found = site_of(request).index(index)
    stored = await found.get(id)
    if stored is None:
        raise ServiceError(f"no document has the id {id[:80]!r}", status=404, field="id")
    return json_response({"index": found.name, **shown(stored.document)})


def shown(document: Document) -> dict[str, Any]:
    """A document as replies have it; of a chunk, also where in which document it is."""
    row: dict[str, Any] = {"id": document.id, "text": document.text, "metadata": dict(document.metadata)}
    if document.parent is not None:
        row |= {"parent": document.parent, "start": document.start, "end": document.end}
    return row


def _document(given: DocumentIn, place: int) -> Document:
    """A document as an index takes it: its text as the texts of files are read.

    Raises:
        ServiceError: 422, naming it.
    """
    field = f"documents.{place}"
    try:
        document = Document(given.id, typed_text(given.text), metadata_of(given.metadata))
    except AcclimateError as error:
        raise ServiceError(error.found, status=422, field=field, possible=error.possible) from error
    if sha256_of(document.id) is not None:
        raise ServiceError(f"document {given.id[:60]!r}: {IS_PICTURE}", status=422, field=field)
    if not document.text or (found := problem(document)):
        found = found if document.text else "it has no text"
        raise ServiceError(f"document {given.id[:60]!r}: {found}", status=422, field=field)
    return document


def _check_ids(ids: Sequence[str], field: str) -> None:
    seen: set[str] = set()
    for place, name in enumerate(ids):
        if name in seen:
            raise ServiceError(f"the id {name[:60]!r} is there twice", status=422, field=f"{field}.{place}")
        if "\0" in name:
            raise ServiceError(f"the id {name[:60]!r} has a NUL in it", status=422, field=f"{field}.{place}")
        seen.add(name)


def _check_count(site: Site, field: str, count: int) -> None:
    most = site.settings.max_inputs
    if count > most:
        raise ServiceError(
            f"{count:,} {field}", status=413, field=field, possible=f"up to {most:,}", fix="Send several requests."
        )
