"""Who may call: API keys from a file, each with its rights."""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from acclimate.errors import DataError
from acclimate.serve.errors import ServiceError

Right: TypeAlias = Literal["read", "write", "admin"]
RIGHTS: tuple[Right, ...] = get_args(Right)
OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/openapi.json", "/docs"})
PAGE_FILES = "/page/"
"""The path above the files of the page for people; nothing there or in `OPEN_PATHS` is about documents or models."""
LEAST_KEY_CHARS = 16
_FORM = (
    '[keys.NAME] with key = "…" (or sha256 = "…", its hash) and rights = ["read", "write", "admin"], or some of them'
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    name: str
    """The name of the key; "anybody" where there are no keys."""
    rights: frozenset[Right]


ANYBODY = Caller("anybody", frozenset({"read", "write"}))
"""Without keys: adapters are changed by a key of their own only."""


class Keys:
    """The keys of a file, read again when it changes.

    Attributes:
        path: None where there are no keys.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the file.

        Raises:
            DataError: it cannot be read, or is not what `_FORM` says.
        """
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._callers: dict[bytes, Caller] = {}
        if path is not None:
            self.reload()

    def reload(self) -> None:
        """Read the file again; one that cannot be used leaves the keys of before.

        Raises:
            DataError: as when it is first read.
        """
        if self.path is not None:
            stamp = _stamp(self.path)
            self._callers, self._stamp = _read(self.path), stamp

    @property
    def has_changed(self) -> bool:
        """Whether the file is another one than that which was read."""
        return self.path is not None and _stamp(self.path) != self._stamp

    def caller(self, headers: Mapping[bytes, bytes], right: Right) -> Caller:
        """Find out who calls, and whether they may.

        Args:
            headers: of the request, with names in lower case.
            right: that the request needs.

        Raises:
            ServiceError: 401 without a known key, 403 with one that lacks the right.
        """
        found = ANYBODY if self.path is None else self._known(headers)
        if right not in found.rights:
            why = "the service has no keys" if self.path is None else f"the key {found.name!r} has no such right"
            raise ServiceError(
                f"this needs the right {right!r}, and {why}",
                status=403,
                fix=f"Give a key of --keys FILE the right: {_FORM}.",
            )
        return found

    def _known(self, headers: Mapping[bytes, bytes]) -> Caller:
        given = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            given = token.strip()
        digest = hashlib.sha256(given).digest()
        found: Caller | None = None
        for known, caller in self._callers.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise ServiceError(
                "the request has no key" if not given else "the request's key is not known here",
                status=401,
                fix="Send it as: Authorization: Bearer KEY.",
            )
        return found


def is_open(path: str) -> bool:
    """Whether anybody may ask for it, also while the models are loaded."""
    return path in OPEN_PATHS or path.startswith(PAGE_FILES)


def right_needed(method: str, path: str) -> Right | None:
    """Say which right a request needs; None for what is open to all."""
    if is_open(path):
        return None
    if path.startswith("/v1/adapters"):
        return "admin"
    return "write" if method in ("PUT", "DELETE", "PATCH") or path == "/v1/feedback" else "read"


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> dict[bytes, Caller]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("keys")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", fix="Give a file to --keys.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid TOML ({error})", possible=_FORM) from None
    if not isinstance(tables, dict) or not tables:
        raise DataError(f"{path} has no keys", possible=_FORM)
    return dict(_key(path, name, table) for name, table in tables.items())


def _key(path: Path, name: str, table: Any) -> tuple[bytes, Caller]:
    match table:
        case {"key": str(key), "rights": [*rights]} if len(table) == 2:
            digest = hashlib.sha256(key.encode()).digest()
            if len(key) < LEAST_KEY_CHARS:
                raise DataError(f"{path}: the key {name!r} has {len(key)} characters", possible=f"{LEAST_KEY_CHARS}+")
        case {"sha256": str(key), "rights": [*rights]} if len(table) == 2:
            try:
                digest = bytes.fromhex(key)
            except ValueError:
                digest = b""
            if len(digest) != hashlib.sha256().digest_size:
                raise DataError(f"{path}: the sha256 of {name!r} is no sha256", possible="64 hexadecimal digits")
        case _:
            raise DataError(f"{path}: [keys.{name}] cannot be read", possible=_FORM)
    if unknown := [right for right in rights if right not in RIGHTS]:
        raise DataError(f"{path}: the key {name!r} has the right {unknown[0]!r}", possible=", ".join(RIGHTS))
    return digest, Caller(name, frozenset(rights))
