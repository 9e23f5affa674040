"""The page for people: `GET /`, and the files that it is made of.

It holds nothing of the models or the documents: a browser asks for those with the key of its user. It loads from
nowhere but here, and its policy lets it run and call nothing else.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from acclimate.serve.access import PAGE_FILES
from acclimate.serve.errors import ServiceError

router = APIRouter(include_in_schema=False)
MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
FIRST = "index.html"


class _File(NamedTuple):
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str


def _read() -> dict[str, _File]:
    found = {}
    for file in (files("acclimate.serve") / "page").iterdir():
        media_type = MEDIA_TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            content = file.read_bytes()
            found[file.name] = _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


_FILES = _read()


@router.get("/")
async def page(request: Request) -> Response:
    """The page."""
    return _reply(request, FIRST)


@router.get(PAGE_FILES + "{name}")
async def page_file(request: Request, name: str) -> Response:
    """One of its styles, scripts and pictures."""
    return _reply(request, name)


def _reply(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise ServiceError(f"the page has no file {name[:80]!r}", status=404)
    headers = {**HEADERS, "etag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
