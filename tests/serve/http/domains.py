"""Three runs over the tiny base whose adapters know their domains: two for queries alone, one of both sides."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from acclimate.formats.query_domain import QueryDomain
from acclimate.models.encoder import Encoder
from acclimate.retrieval.centroids import query_space
from acclimate.retrieval.index.opening import open_index
from acclimate.types import Sides
from tests.serve.http.world import DOCUMENTS, World, adapter_of, write_run

CROPS = ["wheat rice", "rice field", "seed soil", "wheat seed"]
SKY = ["rain sun", "the sun", "water rain", "sun leaf in the rain"]
HERBS = ["leaf leaf", "leaf water leaf", "leaf leaf leaf"]
FAR = "grows grows grows in in in"
SIDES: dict[str, tuple[list[str], Sides]] = {
    "crops": (CROPS, "query"),
    "sky": (SKY, "query"),
    "herbs": (HERBS, "both"),
}


def make_domains(world: World, folder: Path) -> tuple[dict[str, Path], dict[str, QueryDomain]]:
    """Write the runs: crops has an index of base vectors, sky none, herbs its own of the same texts."""
    encoder = Encoder.load(str(world.base), device="cpu", dtype="float32")
    far = encoder.encode([FAR], "query")
    domains: dict[str, QueryDomain] = {}
    runs: dict[str, Path] = {}
    for seed, (name, (texts, sides)) in enumerate(SIDES.items(), 11):
        centroids = encoder.encode(texts, "query")
        radius = 0.5 * float(1 - (far @ centroids.T).max())
        domains[name] = QueryDomain(centroids, radius, len(texts), len(texts), query_space(encoder))
        runs[name] = folder / name
        adapter = dataclasses.replace(adapter_of(encoder, seed, sides), domain=domains[name])
        write_run(runs[name], encoder, adapter)
        if name != "sky":
            adapted = encoder.with_adapter(adapter)
            index = open_index(runs[name] / "index", adapted.space)
            index.upsert(DOCUMENTS, adapted.encode([one.text for one in DOCUMENTS], "document"))
            index.close()
    return runs, domains
