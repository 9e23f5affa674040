"""Registry: the adapters that are served over one base, by name and content hash; loaded, swapped and dropped.

What a request is answered with is settled by `pin`, when the request comes: a `Pinned` holds the adapters themselves,
so that nothing which happens to the names afterwards changes the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acclimate.models.adapter_set import AdapterSet
from acclimate.models.encoder import Encoder
from acclimate.prompts import Prompts
from acclimate.text_use import SpaceId
from acclimate.types import Role, Sides

BASE = "base"
"""The name by which a request asks for the base without any adapter."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model that can be asked for: the base, or an adapter over it."""

    name: str
    """`base`, or the adapter's name."""
    sha256: str | None
    """Content hash of the adapter with its use of texts (`Adapter.fingerprint`); None: the base."""
    base_id: str
    base_sha256: str
    dim: int
    """Dimensions of its vectors."""
    matryoshka: bool
    """Whether fewer leading dimensions may be asked for."""
    max_tokens: int
    """Longer texts are cut."""
    prompts: Prompts
    space: SpaceId
    """Where its document vectors lie, with the default task's prompt."""
    sides: Sides
    metrics: Mapping[str, Any]
    """What its training measured; empty for the base."""

    @property
    def needs_role(self) -> bool:
        """Whether a text becomes another vector as a query than as a document, so that a request has to say which."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Pinned:
    """What one request is answered with, whatever happens to the names meanwhile."""

    name: str
    """As it was asked for; `a=0.5+b=0.5` for a mixture."""
    sha256: str | None
    """What the reply names: the adapter's hash, of a mixture a hash over theirs with the weights; None: the base."""
    served: Served
    """How it is used; of a mixture, the first one's, which all share."""
    weights: Mapping[str, float] | None
    """Name in `adapters` -> weight; None: the base."""
    adapters: AdapterSet


class Registry:
    """The adapters over one base. Any thread may call it; loads and drops wait for one another, pins never do.

    Args:
        base: without an adapter.
        root: adapters are loaded only from below this folder once the service runs; None refuses every `load`.
        max_bytes: of all adapters' matrices together.
        base_names: further names that lead to the base, as its id does.
    """

    def __init__(
        self, base: Encoder, *, root: Path | None = None, max_bytes: int = 1 << 30, base_names: tuple[str, ...] = ()
    ) -> None:
        raise NotImplementedError

    def models(self) -> list[Served]:
        """List what is served now: the base, then the adapters by name."""
        raise NotImplementedError

    def pin(self, model: str | Mapping[str, float]) -> Pinned:
        """Settle what a request is answered with.

        Args:
            model: `base`, the base's id, an adapter's name, or `base:NAME`; or several names with their weights.

        Raises:
            ServiceError: 404 no such model; 400 adapters that cannot be mixed, or weights that are not finite.
        """
        raise NotImplementedError

    def load(self, name: str, folder: str, *, sha256: str | None = None) -> Served:
        """Load an adapter from below the root, or another one in place of that with the same name. It takes seconds.

        Args:
            name: letters, digits, `.`, `_` and `-`; not `base`.
            folder: relative to the root, or a path below it.
            sha256: what its content hash has to be, if it is known.

        Raises:
            ServiceError: 403 no root, or not below it; 400 a name that cannot be, a folder that is no adapter of this
                base, damaged, too large, with weights that are not finite; 409 over `max_bytes`, or another hash.
        """
        raise NotImplementedError

    def drop(self, name: str, *, sha256: str | None = None) -> Served:
        """Take an adapter out; requests pinned to it are still answered.

        Args:
            name: of an adapter.
            sha256: drop it only while it is this one.

        Raises:
            ServiceError: 404 no such adapter; 400 the base; 409 another hash.
        """
        raise NotImplementedError

    @property
    def bytes_used(self) -> int:
        """Bytes of all adapters' matrices."""
        raise NotImplementedError


def role_matters(prompts: Prompts, sides: Sides, task: str | None = None) -> bool:
    """Whether a text becomes another vector as a query than as a document."""
    query, document = (prompts.prompt(role, task) for role in _BOTH)
    return sides == "query" or query != document


_BOTH: tuple[Role, Role] = ("query", "document")
