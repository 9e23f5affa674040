"""How a Qdrant server is reached: its url, its key, and which failures are tried again."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from acclimate.errors import StorageError, UsageError

P = ParamSpec("P")
R = TypeVar("R")

KEY_VARIABLE = "QDRANT_API_KEY"
DEFAULT_PORT = 6333
LEAST_SERVER = (1, 16)
"""The first server that keeps metadata of a collection, where the space is recorded."""
TIMEOUT_S = 60
TRIES = 6
FIRST_WAIT_S = 0.25
"""Doubled after every try: about eight seconds in all, in which another node of a cluster takes over."""
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that another try may not meet."""


@dataclass(frozen=True, slots=True)
class QdrantPlace:
    """Where a collection is: what `qdrant://host:6333/collection` says."""

    host: str
    port: int
    tls: bool
    collection: str

    def __str__(self) -> str:
        return f"{'qdrants' if self.tls else 'qdrant'}://{self.host}:{self.port}/{self.collection}"


def parse_qdrant_url(url: str) -> QdrantPlace:
    """Read `qdrant://host[:port]/collection`, or `qdrants://` for TLS.

    Raises:
        UsageError: no host, no collection, a name that Qdrant does not take, or a credential in the url.
    """
    form = "qdrant://host:6333/collection, or qdrants:// for TLS"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"the url {url!r} cannot be read: {error}", possible=form) from error
    if parts.username or parts.password:
        raise UsageError(
            "the url of a Qdrant server holds a user or a password",
            possible=form,
            fix=f"Put the server's API key into the environment variable {KEY_VARIABLE}.",
        )
    collection = unquote(parts.path.strip("/"))
    if parts.scheme not in ("qdrant", "qdrants") or not parts.hostname or not collection:
        raise UsageError(f"{url!r} is not the place of a Qdrant collection", possible=form)
    if parts.query or parts.fragment or not re.fullmatch(r"[\w.\-]{1,200}", collection):
        raise UsageError(
            f"{url!r} does not end in the name of a collection",
            possible="letters, digits, '_', '-' and '.', 200 at most",
        )
    return QdrantPlace(parts.hostname, port or DEFAULT_PORT, parts.scheme == "qdrants", collection)


def connect(place: QdrantPlace) -> QdrantClient:
    """Connect to the server of a place; the API key comes from the environment.

    Raises:
        StorageError: the server does not answer, refuses the key, or is too old.
    """
    client = QdrantClient(
        host=place.host,
        port=place.port,
        https=place.tls,
        api_key=os.environ.get(KEY_VARIABLE),
        timeout=TIMEOUT_S,
        # Answered by `_refuse_old` in a line that says what to do.
        check_compatibility=False,
    )
    version = patiently(place, client.info).version
    found = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if found < LEAST_SERVER:
        client.close()
        raise StorageError(
            f"{place}: the server is Qdrant {version}",
            possible=f"{'.'.join(map(str, LEAST_SERVER))} or newer",
            fix="Update the server.",
        )
    return client


def patiently(place: QdrantPlace, call: Callable[P, R], *args: P.args, **settings: P.kwargs) -> R:
    """Make a request, and again after a while where the failure may pass; every request here may be repeated.

    Raises:
        StorageError: the server does not answer, or refuses the request.
    """
    for attempt in range(TRIES):
        try:
            return call(*args, **settings)
        except UnexpectedResponse as error:
            status = error.status_code or 0
            if status not in PASSING:
                raise _refused(place, status, error) from error
            reason: Exception = error
        except (ResponseHandlingException, QdrantException) as error:
            reason = error
        if attempt < TRIES - 1:
            time.sleep(FIRST_WAIT_S * 2**attempt)
    raise StorageError(
        f"{place}: the server did not answer {TRIES} times in a row ({_first_line(reason)})",
        fix=f"Start it, or check the address and {KEY_VARIABLE}. What was acknowledged is kept: "
        "start the command again.",
    ) from reason


def _refused(place: QdrantPlace, status: int, error: Exception) -> StorageError:
    if status in (401, 403):
        return StorageError(
            f"{place}: the server refuses the API key, or there is none (status {status})",
            fix=f"Put a key that may write to this collection into {KEY_VARIABLE}.",
        )
    return StorageError(f"{place}: the server refuses the request with status {status}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
