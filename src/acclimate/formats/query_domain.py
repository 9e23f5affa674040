"""`query_domain.safetensors`: which queries an adapter was trained for, as centroids of the base's query vectors.

It lies beside an adapter, and no other tool reads it. It holds 8 to 32 averages of vectors, and no text.

Shapes: C centroids, D dimensions of the base's vectors, N queries.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from acclimate.errors import StorageError
from acclimate.files import storage_errors

QUERY_DOMAIN_FILE = "query_domain.safetensors"
FORMAT = "acclimate query domain 1"
MAX_CENTROIDS = 4096
"""Most centroids of a file that is read: one of ours has 32, times the adapters that were merged into one."""
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class QueryDomain:
    """Where an adapter's queries lie among the base's query vectors."""

    centroids: NDArray[np.float32]
    """[C, D], rows of length 1."""
    radius: float
    """Cosine distance to the nearest centroid that only a few of the adapter's own unseen queries exceed."""
    queries: int
    """Training queries that the centroids are made of."""
    measured_on: int
    """Unseen queries that the radius is taken from."""
    query_space: str
    """What the vectors are of (`retrieval.centroids.query_space`): another base, prompt or pooling does not compare."""

    def distances(self, query_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine distance [N] of unit vectors to the nearest centroid."""
        nearest_N: NDArray[np.float32] = 1.0 - (query_ND @ self.centroids.T).max(axis=1)
        return nearest_N

    @staticmethod
    def joined(domains: Sequence[QueryDomain | None]) -> QueryDomain | None:
        """Join the domains of adapters that become one; None where one of them is not known, or not comparable."""
        known = [domain for domain in domains if domain is not None]
        if len(known) < len(domains) or len({domain.query_space for domain in known}) != 1:
            return None
        return QueryDomain(
            np.unique(np.concatenate([domain.centroids for domain in known]), axis=0),
            max(domain.radius for domain in known),
            sum(domain.queries for domain in known),
            sum(domain.measured_on for domain in known),
            known[0].query_space,
        )


def write_query_domain(folder: Path, domain: QueryDomain) -> None:
    """Write the domain into an existing folder.

    Raises:
        StorageError: no space, no permission.
    """
    path = folder / QUERY_DOMAIN_FILE
    facts = {
        "format": FORMAT,
        "radius": domain.radius,
        "queries": domain.queries,
        "measured_on": domain.measured_on,
        "query_space": domain.query_space,
    }
    centroids = np.ascontiguousarray(domain.centroids, np.float32)
    with storage_errors(path):  # one entry: safetensors writes several in a random order
        save_file({"centroids": centroids}, path, {"acclimate": json.dumps(facts, sort_keys=True)})


def read_query_domain(folder: Path) -> QueryDomain | None:
    """Read the domain of a folder; None where it has none.

    Raises:
        StorageError: the file is damaged, of another format, or holds what cannot be.
    """
    path = folder / QUERY_DOMAIN_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as stored:
            facts = json.loads((stored.metadata() or {}).get("acclimate", "{}"))
            if not isinstance(facts, dict) or facts.get("format") != FORMAT:
                raise ValueError(f"it is not of the format {FORMAT!r}")
            domain = QueryDomain(
                centroids=stored.get_tensor("centroids"),
                radius=float(facts["radius"]),
                queries=int(facts["queries"]),
                measured_on=int(facts["measured_on"]),
                query_space=str(facts["query_space"]),
            )
        _check(domain)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise StorageError(f"{path} is damaged ({error})", fix="Train again, or remove the file.") from None
    return domain


def _check(domain: QueryDomain) -> None:
    """Refuse what no training writes: such a file comes from elsewhere."""
    centroids = domain.centroids
    if centroids.dtype != np.float32 or centroids.ndim != 2 or not 1 <= len(centroids) <= MAX_CENTROIDS:
        raise ValueError(f"centroids {centroids.dtype} {centroids.shape}")
    lengths = np.linalg.norm(centroids, axis=1)
    if not np.all(np.abs(lengths - 1.0) < UNIT_TOLERANCE):  # also where they are not finite
        raise ValueError("centroids that are not of length 1")
    if not math.isfinite(domain.radius) or not 0.0 <= domain.radius <= 2.0:
        raise ValueError(f"radius {domain.radius}")
