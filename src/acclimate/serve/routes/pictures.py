"""The pictures that an index holds: written by `PUT /v1/pictures`, given by `GET /v1/pictures/{sha256}`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from acclimate.data.texts import typed_text
from acclimate.retrieval.index.pictures import NewPicture, picture_document
from acclimate.retrieval.index.records import Document, Vectors, problem
from acclimate.runs.pictures import JPEG, SHA256, WEBP, media_type
from acclimate.serve.answers import hash_headers, named_hash, remaining_s, space_of
from acclimate.serve.errors import ServiceError
from acclimate.serve.image_input import picture_of
from acclimate.serve.replies import json_response
from acclimate.serve.schemas import Name, PictureIn, PutPicturesRequest
from acclimate.serve.site import site_of
from acclimate.serve.strict_json import StrictRoute

router = APIRouter(route_class=StrictRoute, tags=["documents"])
BINARY = {"schema": {"type": "string", "format": "binary"}}
HEADERS = {
    "cache-control": "private, max-age=31536000, immutable",  # its name says what is in it; a key may be needed for it
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
}


@router.get(
    "/v1/pictures/{sha256}",
    summary="One picture",
    response_class=Response,
    responses={200: {"description": "The picture", "content": {JPEG: BINARY, WEBP: BINARY}}},
)
async def get_picture(
    request: Request, sha256: Annotated[str, Path(pattern=f"^{SHA256}$")], index: Name | None = None
) -> Response:
    """A picture among the documents of an index, upright and scaled down; its sha256 is their metadata's `picture`."""
    data = await site_of(request).index(index).picture(sha256)
    headers = {**HEADERS, "etag": f'"{sha256}"'}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=media_type(data))


@router.put("/v1/pictures", summary="Write pictures")
async def put_pictures(request: Request, body: PutPicturesRequest) -> Response:
    """Make pictures documents of an index, by the run's projection. What is kept of each is upright and scaled down;
    one that is there already is not encoded again. `DELETE /v1/documents` takes the ids that the reply gives."""
    from acclimate.serve.pictures import check_same_space

    site = site_of(request)
    site.check_writable()
    index = site.index(body.index)
    pictures = site.pictures_in(index)
    pinned = site.service.registry.pin(index.model)
    check_same_space(pictures, space_of(pinned.served, index.task))
    plain = await pictures.plain(_decoded(body.pictures), remaining_s(request))
    documents = [
        _document(given, hashlib.sha256(data).hexdigest(), pictures.projection, place)
        for place, (given, data) in enumerate(zip(body.pictures, plain, strict=True))
    ]
    new = {one.id: NewPicture(one, data, at) for at, (one, data) in enumerate(zip(documents, plain, strict=True))}
    loop = asyncio.get_running_loop()

    def encode(some: Sequence[NewPicture]) -> Vectors:
        coming = pictures.vectors_of_plain([one.data for one in some], remaining_s(request))
        return asyncio.run_coroutine_threadsafe(coming, loop).result()

    done = await index.write_pictures(list(new.values()), encode, pictures.space)
    counts = {name: getattr(done, name) for name in ("documents", "encoded", "relabelled", "unchanged")}
    ids, named = [document.id for document in documents], named_hash(pinned)
    return json_response({"index": index.name, **counts, "ids": ids, "acclimate": named}, headers=hash_headers(named))


def _decoded(given: Sequence[PictureIn]) -> list[bytes]:
    """The bytes of the image files.

    Raises:
        ServiceError: 422, naming the first that is none.
    """
    found = []
    for place, one in enumerate(given):
        try:
            found.append(picture_of(one.image, place).data)
        except PydanticCustomError as error:
            raise ServiceError(error.message(), status=422, field=f"pictures.{place}.image") from None
    return found


def _document(given: PictureIn, sha256: str, projection: str, place: int) -> Document:
    """A picture's document.

    Raises:
        ServiceError: 422, where no index takes its text or a name.
    """
    text = typed_text(given.text)
    document = picture_document(sha256, text, file=given.file, projection=projection, group=given.group)
    if found := problem(document) if text else "it has no text":
        raise ServiceError(f"picture {place}: {found}", status=422, field=f"pictures.{place}")
    return document
