"""Registry: the adapters that are served over one base, by name and content hash; loaded, swapped and dropped.

What a request is answered with is settled by `pin`, when the request comes: a `Pinned` holds the adapters themselves,
so that nothing which happens to the names afterwards changes the answer.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from acclimate.errors import ModelError, UsageError
from acclimate.files import hash_text
from acclimate.formats.families import find_family
from acclimate.formats.query_domain import QueryDomain
from acclimate.models.adapter_set import AdapterSet
from acclimate.models.backends.engine_encoder import EngineEncoder
from acclimate.models.backends.graph_set import GraphSet
from acclimate.models.encoder import Encoder
from acclimate.prompts import Prompts
from acclimate.retrieval.centroids import query_space
from acclimate.retrieval.routing import BASE, ROUTE_MODES
from acclimate.serve.adapter_files import LoadedAdapter, read_below
from acclimate.serve.errors import ServiceError
from acclimate.text_use import SpaceId
from acclimate.types import ROLES, Sides

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MAX_MIXED = 16
"""Adapters of one mixture."""


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
    domain: QueryDomain | None
    """Where its queries lie; None: no router knows it, as it has no centroids or those of other vectors."""

    @property
    def needs_role(self) -> bool:
        """Whether a text becomes another vector as a query than as a document, so that a request has to say which."""
        return role_matters(self.prompts, self.sides)


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
    adapters: AdapterSet | GraphSet


class _State(NamedTuple):
    """What is served at one moment; replaced as a whole."""

    adapters: AdapterSet | GraphSet
    loaded: Mapping[str, LoadedAdapter]
    served: Mapping[str, Served]


class Registry:
    """The adapters over one base. Any thread may call it; loads and drops wait for one another, pins never do.

    Attributes:
        base: what all adapters are for.

    Args:
        base: without an adapter; an export takes none.
        adapters: name -> what is served from the start.
        root: adapters are loaded only from below this folder once the service runs; None refuses every `load`.
        max_bytes: of all adapters' matrices together.
        base_names: further names that lead to the base, as its id does.

    Raises:
        ModelError: an adapter of another base; a base with two transformers.
        ServiceError: a name that cannot be, or more than `max_bytes`.
    """

    def __init__(
        self,
        base: Encoder | EngineEncoder,
        adapters: Mapping[str, LoadedAdapter] | None = None,
        *,
        root: Path | None = None,
        max_bytes: int = 1 << 30,
        base_names: Sequence[str] = (),
    ) -> None:
        self.base = base
        self._root, self._max_bytes = root, max_bytes
        self._query_space = query_space(base)
        self._base_names = frozenset({BASE, base.source.id, *base_names})
        self._lock = threading.Lock()
        for name in adapters or {}:
            self._check_name(name)
        self._state = self._made(adapters or {})

    def models(self) -> list[Served]:
        """List what is served now: the base, then the adapters by name."""
        served = self._state.served
        return [served[BASE], *(served[name] for name in sorted(served.keys() - {BASE}))]

    def pin(self, model: str | Mapping[str, float]) -> Pinned:
        """Settle what a request is answered with.

        Args:
            model: `base`, the base's id, an adapter's name, or `base:NAME`; or several names with their weights.

        Raises:
            ServiceError: 404 no such model; 400 adapters that cannot be mixed, or weights that are not finite.
        """
        state = self._state
        if isinstance(model, str):
            name = self._adapter_name(model)
            served = _found(state, name, model)
            return Pinned(served.name, served.sha256, served, None if name == BASE else {name: 1.0}, state.adapters)
        if not model or len(model) > MAX_MIXED:
            raise ServiceError(
                f"a mixture of {len(model)} adapters", status=400, field="model", possible=f"1 to {MAX_MIXED}"
            )
        weights = {self._adapter_name(name): float(weight) for name, weight in model.items()}
        members = [_found(state, name, name) for name in weights]
        if BASE in weights or len(weights) < len(model):
            raise ServiceError(
                "a mixture of adapters names the base, or an adapter twice",
                status=400,
                field="model",
                possible="different adapters with their weights; what they leave is the base's share",
            )
        try:
            state.adapters.use_of(weights)
        except UsageError as error:
            raise ServiceError(error.found, status=400, field="model", possible=error.possible, fix=error.fix) from None
        parts = [f"{name}={weight:g}" for name, weight in weights.items()]
        hashes = sorted(f"{member.sha256} {weight!r}" for member, weight in zip(members, weights.values(), strict=True))
        return Pinned("+".join(parts), hash_text(*hashes), members[0], weights, state.adapters)

    def snapshot(self) -> Registry:
        """What is served at this moment, whatever is loaded or dropped later; for reading only."""
        return copy.copy(self)

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
        self._check_name(name)
        loaded = read_below(self._root, folder, self.adaptable(), self._max_bytes)
        found = loaded.adapter.fingerprint
        if sha256 not in (None, found):
            raise ServiceError(f"{folder} has the hash {found}", status=409, field="sha256", possible=found)
        return self.put(name, loaded)

    def put(self, name: str, loaded: LoadedAdapter) -> Served:
        """Serve an adapter that was read, maybe in place of that with the same name.

        Raises:
            ServiceError: 400 it does not fit the base; 409 over `max_bytes`.
        """
        self._check_name(name)
        with self._lock:
            self._state = self._made({**self._state.loaded, name: loaded})
            return self._state.served[name]

    def drop(self, name: str, *, sha256: str | None = None) -> Served:
        """Take an adapter out; requests pinned to it are still answered.

        Args:
            name: of an adapter.
            sha256: drop it only while it is this one.

        Raises:
            ServiceError: 404 no such adapter; 400 the base; 409 another hash.
        """
        with self._lock:
            served = _found(self._state, self._adapter_name(name), name)
            if served.sha256 is None:
                raise ServiceError("the base cannot be dropped", status=400, field="name", possible="an adapter")
            if sha256 not in (None, served.sha256):
                raise ServiceError(
                    f"{served.name} has the hash {served.sha256}", status=409, field="sha256", possible=served.sha256
                )
            self._state = self._made({key: one for key, one in self._state.loaded.items() if key != served.name})
            return served

    @property
    def bytes_used(self) -> int:
        """Bytes of all adapters' matrices."""
        return self._bytes(self._state.loaded)

    def _adapter_name(self, model: str) -> str:
        """The name by which a model is known here: `base`, or what may be an adapter's."""
        if model in self._base_names:
            return BASE
        prefix, colon, name = model.rpartition(":")
        return name if colon and prefix in self._base_names else model

    def _check_name(self, name: str) -> None:
        if not NAME.fullmatch(name) or name in self._base_names or name in ROUTE_MODES:
            raise ServiceError(
                f"an adapter cannot be called {name[:200]!r}",
                status=400,
                field="name",
                possible="up to 128 letters, digits, '.', '_' and '-', and not a name of the base, auto, mix or fuse",
            )

    def adaptable(self) -> Encoder:
        """The base, where adapters can be put on it.

        Raises:
            ServiceError: 409 it is an export.
        """
        if isinstance(self.base, EngineEncoder):
            raise ServiceError(
                f"{self.base.source.id} is an export, which takes no adapter",
                status=409,
                fix="Serve the base in torch: name it in place of the run that was tuned.",
            )
        return self.base

    def _bytes(self, loaded: Mapping[str, LoadedAdapter]) -> int:
        return sum(one.bytes_as(self.adaptable().dtype) for one in loaded.values())

    def _made(self, loaded: Mapping[str, LoadedAdapter]) -> _State:
        """A set beside the one that is served; both share the base's weights."""
        total = self._bytes(loaded)
        if total > self._max_bytes:
            raise ServiceError(
                f"the adapters would take {total} bytes of memory",
                status=409,
                possible=f"up to {self._max_bytes}",
                fix="Drop an adapter that is not needed any more.",
            )
        try:
            if isinstance(self.base, EngineEncoder) and not loaded:
                adapters: AdapterSet | GraphSet = GraphSet(self.base)
            else:
                adapters = AdapterSet(self.adaptable(), {name: one.adapter for name, one in loaded.items()})
        except ModelError as error:  # the matrices of the one that comes do not fit
            raise ServiceError(
                error.found, status=400, field="folder", possible=error.possible, fix=error.fix
            ) from error
        served = {
            name: _served(self.base, name, one, self._query_space) for name, one in {BASE: None, **loaded}.items()
        }
        return _State(adapters, dict(loaded), served)


def _found(state: _State, name: str, asked: str) -> Served:
    if name not in state.served:
        raise ServiceError(
            f"no model is called {asked[:200]!r}", status=404, field="model", possible=", ".join(state.served)
        )
    return state.served[name]


def _served(base: Encoder | EngineEncoder, name: str, loaded: LoadedAdapter | None, query_space: str) -> Served:
    use, adapter = base.use, None if loaded is None else loaded.adapter
    sides: Sides = "both"
    family = find_family(base.source.id)
    space = base.space
    domain = None if adapter is None else adapter.domain
    if adapter is not None:
        use, sides = adapter.use, adapter.sides
        space = dataclasses.replace(
            space,
            document_adapter=adapter.sha256 if sides == "both" else None,
            document_prompt=use.prompts.prompt("document"),
            pooling=use.pooling,
            dim=use.dim,
            lowercase=use.lowercase,
        )
    return Served(
        name=name,
        sha256=None if adapter is None else adapter.fingerprint,
        base_id=base.source.id,
        base_sha256=base.source.sha256,
        dim=use.dim,
        matryoshka=bool(family and family.matryoshka) if loaded is None else loaded.matryoshka,
        max_tokens=use.max_tokens,
        prompts=use.prompts,
        space=space,
        sides=sides,
        metrics={} if adapter is None else adapter.metrics,
        domain=domain if domain is not None and domain.query_space == query_space else None,
    )


def role_matters(prompts: Prompts, sides: Sides, task: str | None = None) -> bool:
    """Whether a text becomes another vector as a query than as a document.

    Raises:
        UsageError: the prompts know no such task.
    """
    query, document = (prompts.prompt(role, task) for role in ROLES)
    return sides == "query" or query != document
