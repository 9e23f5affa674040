"""The pictures that an index holds: `GET /v1/pictures/{sha256}`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from acclimate.runs.pictures import JPEG, SHA256, WEBP, media_type
from acclimate.serve.schemas import Name
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
