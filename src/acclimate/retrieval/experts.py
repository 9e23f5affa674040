"""Experts: adapters of one base, each for a domain, and the vectors that a route asks for.

Query-side adapters search one index of base vectors, whatever answers a query. An adapter of both sides has document
vectors of its own; it takes part by fusion only.

Shapes: N queries, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from acclimate.errors import UsageError
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.models.adapter_set import AdapterSet, Row
from acclimate.models.encoder import Encoder
from acclimate.retrieval.centroids import query_space
from acclimate.retrieval.routing import BASE, MIXED, ROUTE_MODES, CentroidRouter, Route, RouteMode, route
from acclimate.retrieval.top_k import Vectors
from acclimate.runs.resolve import adapter_folder, find_base


class Experts:
    """Adapters over one base.

    Attributes:
        base: with its own use of texts.
        set: the adapters.
        router: by centroids, of the adapters that have them.

    Args:
        base: without an adapter.
        adapters: by name.

    Raises:
        ModelError: an adapter of another base.
        UsageError: an adapter's centroids are of other query vectors than the base's.
    """

    def __init__(self, base: Encoder, adapters: Mapping[str, Adapter]) -> None:
        self.base = base.with_own_use()
        self.set = AdapterSet(self.base, adapters)
        space = query_space(self.base)
        domains = {name: adapter.domain for name, adapter in adapters.items() if adapter.domain is not None}
        if wrong := [name for name, domain in domains.items() if domain.query_space != space]:
            raise UsageError(
                f"the centroids of {wrong[0]} are of query vectors with another prompt or pooling than the base's",
                fix="Train it again with the base as it is now.",
            )
        self.router = CentroidRouter(domains)

    @property
    def one_sided(self) -> list[str]:
        """The adapters whose queries search base vectors, by name."""
        return [name for name, adapter in self.set.adapters.items() if self.searches_base(adapter)]

    def searches_base(self, adapter: Adapter) -> bool:
        """Whether an adapter's queries search the base's document vectors: its documents are read as the base's are."""
        use, own = adapter.use, self.base.use
        same = (use.pooling, use.dim, use.prompts.prompt("document")) == (
            own.pooling,
            own.dim,
            own.prompts.prompt("document"),
        )
        return adapter.sides == "query" and same

    def routes(self, queries: Sequence[str], mode: RouteMode, most: int = MIXED) -> list[Route]:
        """Decide for each query what answers it; in auto and mix only adapters that search base vectors count.

        Raises:
            UsageError: mix, and an adapter that cannot be mixed is among the nearest.
        """
        distances = self.router.distances(self.base.encode(queries, "query"))
        return [self.route(mode, found, self.router.radii, most) for found in distances]

    def route(
        self, mode: RouteMode, distances: Mapping[str, float], radii: Mapping[str, float], most: int = MIXED
    ) -> Route:
        """Decide by distances what answers a query; see `routes`."""
        if mode == "auto":
            allowed = set(self.one_sided)
            distances = {name: distance for name, distance in distances.items() if name in allowed}
        found = route(mode, distances, radii, most)
        if mode == "mix":
            self.check_mixable(found.weights)
        return found

    def check_mixable(self, names: Collection[str]) -> None:
        """Refuse to mix adapters whose document vectors are their own.

        Raises:
            UsageError: one is among them; it is named.
        """
        allowed = self.one_sided
        if wrong := [name for name in names if name not in allowed]:
            raise UsageError(
                f"{wrong[0]} cannot be mixed: its documents have vectors of their own",
                possible=f"adapters for queries alone: {', '.join(allowed) or 'none here'}",
                fix="Fuse their results instead (fuse), or train it with --sides query.",
            )

    def encode(self, queries: Sequence[str], weights: Sequence[Mapping[str, float]]) -> Vectors:
        """Vectors [N, D] of queries.

        Args:
            queries: texts without prompts.
            weights: of each query: adapter -> its share; without any, the base encodes it.
        """
        rows = [Row(text, "query", adapter=dict(own) or None) for text, own in zip(queries, weights, strict=True)]
        return np.asarray(self.set.encode_rows(rows), np.float32)


def load_experts(
    names: Mapping[str, str | Path],
    base: str | None = None,
    *,
    unrouted: Collection[str] = (),
    device: str = "auto",
    dtype: str = "auto",
) -> Experts:
    """Load the adapters of runs, or of their folders, over the one base that they have.

    Args:
        names: how an adapter is called -> where it is.
        base: where the base is, if the adapters' own record does not lead to it.
        unrouted: names of adapters to which no query is routed.
        device: see `RunConfig.device`.
        dtype: see `RunConfig.dtype`.

    Raises:
        UsageError: nothing is named, a place holds no adapter or one without centroids, or a name means something else.
        ModelError: the base is not found, or they have different ones.
    """
    adapters: dict[str, Adapter] = {}
    source = None
    for name, place in names.items():
        folder = adapter_folder(place)
        if folder is None:
            raise UsageError(f"{place} holds no adapter", fix=f"Make one with: acclimate train {place} --sides query")
        if name in (BASE, *ROUTE_MODES):
            raise UsageError(f"an adapter cannot be called {name!r}", fix="Give the run's folder another name.")
        adapter = load_adapter(folder, base)
        adapters[name] = dataclasses.replace(adapter, domain=None) if name in unrouted else adapter
        if adapter.domain is None and name not in unrouted:
            raise UsageError(
                f"the adapter of {place} has no centroids of its queries: an older release or another tool made it",
                fix="Train one anew, in another run.",
            )
        if source is None:
            source = find_base(folder, adapter.base_id, adapter.base_sha256, base, adapter.use.pooling)
    if source is None:
        raise UsageError("no run is named", possible="two runs or more")
    return Experts(Encoder.open(source, source.use, device=device, dtype=dtype), adapters)


def names_of(places: Sequence[str | Path]) -> dict[str, Path]:
    """Call each run by its folder's name.

    Raises:
        UsageError: two have the same.
    """
    found: dict[str, Path] = {}
    for place in places:
        path = Path(place).expanduser()
        name = path.absolute().name
        if name in found:
            raise UsageError(f"{found[name]} and {path} are both called {name}", fix="Rename one of the folders.")
        found[name] = path
    return found
