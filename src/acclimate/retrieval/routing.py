"""Which adapters a query is answered with: the nearest, several by their shares, or the base where none is near.

A router gives distances, one for each adapter, and radii; what follows from them is the same for every router. Routers:
`CentroidRouter`, by the base's vector of the query, and `retrieval.token_router`, by its tokens alone.

Shapes: N queries, K adapters, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from acclimate.core.fusion import reciprocal_rank_fusion
from acclimate.errors import UsageError
from acclimate.formats.query_domain import QueryDomain
from acclimate.retrieval.index.records import Hit

RouteMode: TypeAlias = Literal["auto", "mix", "fuse"]
"""auto: one adapter, or the base. mix: several, whose updates are added up in one pass. fuse: several, each of which
searches by itself, and whose results become one list."""
ROUTE_MODES: tuple[RouteMode, ...] = get_args(RouteMode)
BASE = "base"
"""Stands for no adapter."""
MIXED = 3
"""Adapters that share a query, at most."""
SHARPNESS = 0.1
"""Difference of distance, as a share of the nearest adapter's radius, that makes a share e times as large."""
LEAST_SHARE = 0.05
"""A smaller share is not worth its computation; the base gets it."""


@dataclass(frozen=True, slots=True)
class Route:
    """What answers one query, and why."""

    mode: RouteMode
    weights: Mapping[str, float]
    """Adapter -> its share, above 0; what they leave to 1 is the base's."""
    distances: Mapping[str, float]
    """Distances of all adapters that the router knows."""
    reason: str

    @property
    def base_weight(self) -> float:
        """The base's share."""
        left = 1.0 - math.fsum(self.weights.values())
        return left if left > 1e-6 else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """The shares of all that answer, the base's among them."""
        return {**self.weights, **({BASE: self.base_weight} if self.base_weight else {})}

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for replies."""
        return {
            "mode": self.mode,
            "weights": {name: round(share, 4) for name, share in self.shares.items()},
            "distances": {name: round(distance, 4) for name, distance in self.distances.items()},
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class CentroidRouter:
    """Distances to the nearest centroid of every adapter's training queries, by the base's query vectors."""

    domains: Mapping[str, QueryDomain]

    @property
    def radii(self) -> dict[str, float]:
        """Adapter -> the distance that only a few of its own queries exceed."""
        return {name: domain.radius for name, domain in self.domains.items()}

    def distances(self, query_ND: NDArray[np.float32]) -> list[dict[str, float]]:
        """Distances of some queries: for each, adapter -> 0 to 2.

        Args:
            query_ND: unit vectors, by the base with its own query prompt.
        """
        columns = [domain.distances(query_ND) for domain in self.domains.values()]
        rows = np.stack(columns, axis=1).tolist() if columns else [[]] * len(query_ND)
        return [dict(zip(self.domains, row, strict=True)) for row in rows]


def route(mode: RouteMode, distances: Mapping[str, float], radii: Mapping[str, float], most: int = MIXED) -> Route:
    """Decide by distances what answers a query.

    auto: the nearest adapter, if the query is within its radius, else the base (RouterRetriever, Lee et al. 2024,
    arXiv 2409.02685, which has no radius). mix and fuse: the `most` nearest and the base share it by a softmax of
    -distance / (`SHARPNESS` x radius of the nearest); the base counts as an adapter at that radius, so that the limit
    of a sharp softmax is auto. Shares below `LEAST_SHARE` go to the base.

    Args:
        mode: how they answer.
        distances: adapter -> distance.
        radii: of the same adapters.
        most: adapters that share a query.
    """
    if not distances:
        return Route(mode, {}, {}, "no adapter can be chosen: the base answers")
    order = sorted(distances, key=lambda name: (distances[name], name))
    nearest = order[0]
    near, radius = distances[nearest], radii[nearest]
    where = f"{nearest} is nearest, at {near:.3f}; its radius is {radius:.3f}"
    if mode == "auto":
        if near > radius:
            return Route(mode, {}, distances, f"{where}: the query is beyond it, and the base answers")
        return Route(mode, {nearest: 1.0}, distances, f"{where}: the query is within it")
    weights = _shares(distances, order[:most], radius)
    if not weights:
        return Route(mode, {}, distances, f"{where}: the query is far beyond it, and the base answers")
    together = " and ".join([*weights, *(["the base"] if 1.0 - math.fsum(weights.values()) > 1e-6 else [])])
    how = "mixed in the weights" if mode == "mix" else "fused by ranks"
    said = f"{together} by their distances, {how}" if len(weights) > 1 or " and " in together else "it answers alone"
    return Route(mode, weights, distances, f"{where}: {said}")


def _shares(distances: Mapping[str, float], names: Sequence[str], radius: float) -> dict[str, float]:
    """The softmax over some adapters and the base, without the small shares."""
    unit = SHARPNESS * max(radius, 1e-6)
    nearest = min(radius, *(distances[name] for name in names))
    grown = {name: math.exp((nearest - distances[name]) / unit) for name in names}
    total = math.fsum(grown.values()) + math.exp((nearest - radius) / unit)
    shares = {name: value / total for name, value in grown.items()}
    kept = {name: share for name, share in shares.items() if share >= LEAST_SHARE}
    base = math.exp((nearest - radius) / unit) / total
    if base < LEAST_SHARE and kept:  # nor is the base's share worth anything then
        whole = math.fsum(kept.values())
        kept = {name: share / whole for name, share in kept.items()}
    return kept


def fuse_rankings(rankings: Mapping[str, Sequence[str]], shares: Mapping[str, float]) -> dict[str, float]:
    """Fuse the rankings of several adapters by weighted reciprocal ranks (`core.fusion`).

    Args:
        rankings: adapter, or `BASE` -> ids, best first.
        shares: of each of them.

    Returns:
        Id -> score, best first.
    """
    return reciprocal_rank_fusion(list(rankings.values()), [shares[name] for name in rankings])


def fuse_hits(found: Mapping[str, Sequence[Hit]], shares: Mapping[str, float]) -> list[Hit]:
    """Fuse what several adapters have found, in one index or in several; a document is the same by its id and text.

    Args:
        found: adapter, or `BASE` -> its hits, best first.
        shares: of each of them.

    Returns:
        Hits whose scores are sums of weighted reciprocal ranks, best first.
    """
    hits: dict[str, Hit] = {}
    rankings: dict[str, list[str]] = {}
    for name, own in found.items():
        rankings[name] = []
        for hit in own:
            key = hit.id
            while key in hits and hits[key].text != hit.text:
                key += "\0"  # in no id
            hits.setdefault(key, hit)
            rankings[name].append(key)
    return [Hit(hits[key].document, score) for key, score in fuse_rankings(rankings, shares).items()]


def check_route_mode(mode: str) -> RouteMode:
    """Return the mode, checked.

    Raises:
        UsageError: there is no such.
    """
    for known in ROUTE_MODES:
        if mode == known:
            return known
    raise UsageError(f"adapter = {mode!r}", possible=", ".join(ROUTE_MODES))
