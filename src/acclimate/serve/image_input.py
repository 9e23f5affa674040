"""Pictures in a request for vectors, in the forms that others have defined.

Jina: `"input": [{"image": "<base64, or data:image/…;base64,…>"}, {"text": "…"}]`. vLLM: `"messages"` in place of
`"input"`, as in a chat, with one picture or one text (`image_url` with a `data:` URL). Nothing is fetched: a URL is
refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic_core import PydanticCustomError

FORMS = '{"text": "…"} or {"image": "<base64>"}'
PARTS = '{"type": "text", "text": "…"} or {"type": "image_url", "image_url": {"url": "data:image/…;base64,…"}}'


class GivenPicture(NamedTuple):
    """A picture of a request: the bytes of an image file."""

    data: bytes


def item_of(value: Any, place: int) -> str | GivenPicture:
    """Read one item of `input` that is an object.

    Raises:
        PydanticCustomError: it is none of ours, or its picture cannot be read.
    """
    if isinstance(value, Mapping) and len({"text", "image"} & value.keys()) == 1:
        text = value.get("text")
        if isinstance(text, str):
            return text
        if isinstance(value.get("image"), str):
            return picture_of(value["image"], place)
    raise PydanticCustomError("input", "item {place} is neither {forms}", {"place": place, "forms": FORMS})


def input_of_messages(value: Any) -> list[str | GivenPicture] | None:
    """Read vLLM's `messages` as an `input` of one item; None where there are none.

    Raises:
        PydanticCustomError: several parts, or none: one picture or one text has a vector here, not both together.
    """
    if value is None:
        return None
    parts: list[Any] = []
    for message in value if isinstance(value, list) else [value]:
        content = message.get("content") if isinstance(message, Mapping) else None
        parts += content if isinstance(content, list) else [{"type": "text", "text": content}]
    if len(parts) != 1:
        raise PydanticCustomError("messages", "{count} parts, and one has a vector: {forms}", _told(len(parts)))
    part = parts[0] if isinstance(parts[0], Mapping) else {}
    text, image = part.get("text"), part.get("image_url")
    if part.get("type") == "text" and isinstance(text, str):
        return [text]
    url = image.get("url") if isinstance(image, Mapping) else image
    if part.get("type") != "image_url" or not isinstance(url, str):
        raise PydanticCustomError("messages", "the part is neither {forms}", _told(1))
    return [picture_of(url, 0)]


def _told(count: int) -> dict[str, Any]:
    return {"count": count, "forms": PARTS}


def picture_of(given: str, place: int) -> GivenPicture:
    """Read a picture, in base64 or as a data URL.

    Raises:
        PydanticCustomError: it is neither, or a URL to be fetched.
    """
    if given[:8].lower().startswith(("http://", "https://")):
        raise PydanticCustomError(
            "input", "item {place} is a URL: send the picture itself, as base64", {"place": place}
        )
    head, comma, rest = given.partition(",")
    if comma and not (head.startswith("data:") and head.endswith(";base64")):
        raise PydanticCustomError("input", "item {place} is no data URL in base64", {"place": place})
    try:
        return GivenPicture(base64.b64decode(rest if comma else given, validate=True))
    except (binascii.Error, ValueError):
        raise PydanticCustomError("input", "item {place} is no base64", {"place": place}) from None
