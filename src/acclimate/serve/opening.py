"""Runs, adapters' folders and models -> an engine over one base, and what each run serves beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from acclimate.configs import RunConfig
from acclimate.retrieval.index.records import Fusion
from acclimate.serve.engine import BatchRecord, Engine
from acclimate.serve.registry import Registry
from acclimate.serve.scheduler import Limits


@dataclass(frozen=True, slots=True)
class ServedRun:
    """A run's index, for `/v1/search` and documents."""

    name: str
    """The run's folder name: also the name of its adapter in the registry, where it has one."""
    model: str
    """The name in the registry whose queries search the index: the adapter's, or `base`."""
    place: str
    """Where its index is: a folder, or an address; it may not be there yet."""
    fusion: Fusion
    """How its two rankings become one."""
    has_index: bool
    """Whether there is one, of the model's space; one of another space was refused with an error."""


@dataclass(frozen=True, slots=True)
class Service:
    """What `open_service` makes; the engine is not started."""

    engine: Engine
    registry: Registry
    runs: tuple[ServedRun, ...]
    reranker_id: str | None
    """Canonical id of the reranker; None where there is none."""


def open_service(
    names: Sequence[str],
    config: RunConfig,
    *,
    reranker: str | None = None,
    limits: Limits | None = None,
    cache_bytes: int = 0,
    adapter_root: Path | None = None,
    adapter_bytes: int = 1 << 30,
    on_batch: Callable[[BatchRecord], None] | None = None,
) -> Service:
    """Load runs, adapters' folders or models, all of one base.

    Args:
        names: runs, adapter folders, model folders or hub ids; `NAME=PLACE` gives one another name than its folder's.
        config: device and dtype; `model` says where the base is, if the adapters' own record does not lead to it.
        reranker: a run with one, a folder or a hub id; if not given, that of the first run that has one.
        limits: see `Engine`.
        cache_bytes: see `Engine`.
        adapter_root: see `Registry`.
        adapter_bytes: see `Registry`.
        on_batch: see `Engine`.

    Raises:
        UsageError: nothing is named; two have the same name; models of different bases; an index of another space.
        ModelError: a name leads to nothing that can be served.
    """
    raise NotImplementedError
