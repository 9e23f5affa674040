"""Searches that leave the adapter to the service."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from acclimate.configs import RouteConfig
from acclimate.data.dataset import Dataset, write_dataset
from acclimate.models.encoder import Encoder
from acclimate.retrieval.routing import CentroidRouter, Route, RouteMode
from acclimate.retrieval.routing import route as decide
from acclimate.serve.server import Process
from acclimate.types import Example
from tests.chat_server import ChatServer
from tests.serve.http.domains import CROPS, FAR, HERBS, SIDES, SKY, make_domains
from tests.serve.http.test_embeddings import refused
from tests.serve.http.world import World, running, wait_until_ready


@dataclasses.dataclass(frozen=True)
class Domains:
    """What is served, and what its router has to say."""

    client: httpx.Client
    encoder: Encoder
    router: CentroidRouter
    runs: dict[str, Path]

    def route(self, mode: RouteMode, text: str, *names: str) -> Route:
        """The route among some adapters."""
        distances = self.router.distances(self.encoder.encode([text], "query"))[0]
        return decide(mode, {name: distances[name] for name in names}, self.router.radii)

    def search(self, **body: Any) -> dict[str, Any]:
        """A reply."""
        reply = self.client.post("/v1/search", json={"index": "crops", "mode": "dense", "top_k": 8, **body})
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer


@pytest.fixture(scope="module")
def domains(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domains]:
    """A service over the three runs."""
    runs, found = make_domains(world, tmp_path_factory.mktemp("domains"))
    encoder = Encoder.load(str(world.base), device="cpu", dtype="float32")
    with ChatServer(lambda _: "Rice [1].") as llm:
        process = Process([str(run) for run in runs.values()], world.config(llm=llm.url))
        with running(process), httpx.Client(base_url=process.address, timeout=120) as client:
            wait_until_ready(client)
            yield Domains(client, encoder, CentroidRouter(found), runs)


def test_auto_is_the_adapter_of_the_nearest_centroids(domains: Domains) -> None:
    for text, name in (("wheat rice", "crops"), ("rain sun", "sky")):
        answer = domains.search(query=text, adapter="auto", explain=True)
        assert answer["acclimate"]["model"] == name
        assert answer["hits"] == domains.search(query=text, adapter=name, explain=True)["hits"]
        route = domains.route("auto", text, "crops", "sky")
        assert answer["route"]["weights"] == {name: 1.0} and answer["route"]["mode"] == "auto"
        assert answer["route"]["reason"].startswith(route.reason)
        assert set(answer["route"]["distances"]) == {"crops", "sky", "herbs"}
    assert domains.search(query="wheat", explain=True)["route"] is None


def test_beyond_the_radius_the_base_answers(domains: Domains) -> None:
    answer = domains.search(query=FAR, adapter="auto", explain=True)
    assert answer["acclimate"]["model"] == "base" and answer["route"]["weights"] == {"base": 1.0}
    assert answer["hits"] == domains.search(query=FAR, adapter="base", explain=True)["hits"]


def test_an_adapter_of_both_sides_is_left_out_of_auto_and_refused_by_mix(domains: Domains) -> None:
    answer = domains.search(query=HERBS[0], adapter="auto", explain=True)
    assert "herbs" not in answer["route"]["weights"]
    assert "herbs is left out: it searches another index" in answer["route"]["reason"]
    post = domains.client.post
    error = refused(post("/v1/search", json={"index": "crops", "query": HERBS[0], "adapter": "mix"}), 422, "adapter")
    assert "herbs cannot be mixed" in error["message"]
    for mode in ("auto", "mix"):
        refused(post("/v1/search", json={"index": "herbs", "query": "wheat", "adapter": mode}), 422, "adapter")
    mixture = {"crops": 0.5, "herbs": 0.5}
    error = refused(post("/v1/search", json={"index": "crops", "query": "wheat", "adapter": mixture}), 422, "adapter")
    assert "herbs cannot be mixed" in error["message"]


def test_mix_is_the_mixture_of_the_shares(domains: Domains) -> None:
    both = (f"{one} {other}" for one in CROPS for other in SKY)
    text = next(one for one in both if set(domains.route("mix", one, *SIDES).weights) == {"crops", "sky"})
    answer = domains.search(query=text, adapter="mix", explain=True)
    route = domains.route("mix", text, *SIDES)
    assert answer["route"]["weights"] == route.to_json()["weights"]
    same = domains.search(query=text, adapter=dict(route.weights))["hits"]
    assert [hit["id"] for hit in answer["hits"]] == [hit["id"] for hit in same]
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], [hit["score"] for hit in same], atol=1e-5)


def test_fuse_joins_what_each_finds_in_its_own_index(domains: Domains) -> None:
    text = HERBS[0]
    answer = domains.search(query=text, adapter="fuse", explain=True)
    shares = domains.route("fuse", text, *SIDES).shares
    assert "herbs" in shares and set(answer["route"]["weights"]) == set(shares)
    assert [one["model"] for one in answer["fused"]] == list(shares)
    lists = {
        name: domains.search(query=text, adapter=name, index="herbs" if name == "herbs" else "crops")["hits"]
        for name in shares
    }
    fused: dict[str, float] = {}
    for name, hits in lists.items():
        for rank, hit in enumerate(hits, 1):
            fused[hit["id"]] = fused.get(hit["id"], 0.0) + shares[name] / (60 + rank)
    best = sorted(fused, key=lambda one: (-fused[one], one))[:8]
    assert [hit["id"] for hit in answer["hits"]] == best
    first = answer["hits"][0]
    assert first["explanation"]["fuse"]["rank"] == 1 and set(first["explanation"]) <= {"fuse", *shares}
    elsewhere = domains.search(query=FAR, adapter="fuse", index="herbs", explain=True)  # no base vectors there
    assert elsewhere["route"]["weights"] == {"herbs": 1.0}


def test_an_answer_is_read_from_what_a_route_finds(domains: Domains) -> None:
    """Also where results are fused, its score is a cosine: that of the best document of any of them."""
    for mode in ("auto", "fuse"):
        body = {"index": "crops", "query": HERBS[0], "model": mode}
        reply = domains.client.post("/v1/answer", json=body)
        assert reply.status_code == 200, reply.text
        answer = reply.json()
        found = domains.search(query=HERBS[0], adapter=mode, mode="hybrid", explain=True)
        assert answer["citations"][0]["id"] == found["hits"][0]["id"]
        used = answer["fused"] if mode == "fuse" else [{**answer["acclimate"], "index": "crops"}]
        best = [domains.search(query=HERBS[0], adapter=one["model"], index=one["index"])["hits"][0] for one in used]
        assert answer["score"] == pytest.approx(max(hit["score"] for hit in best), abs=1e-5)
        assert answer["threshold"] is None
        assert (mode == "fuse") == ("fused" in answer) and answer.get("fused") == found.get("fused")


def test_models_say_whether_they_can_be_routed_to(domains: Domains) -> None:
    rows = {row["id"]: row for row in domains.client.get("/v1/models").json()["data"]}
    assert rows["base"]["domain"] is None and rows["crops"]["domain"]["centroids"] == len(CROPS)


def test_a_router_by_tokens_is_fitted_to_the_runs_data(domains: Domains, world: World) -> None:
    for name in ("crops", "sky"):
        texts, dataset = SIDES[name][0], domains.runs[name] / "dataset"
        dataset.mkdir()
        examples = [Example(text, text) for text in texts]
        write_dataset(dataset, Dataset("retrieval", {}, {}, {"train": {}}, examples), [])
    config = dataclasses.replace(world.config(), route=RouteConfig(router="tokens"))
    process = Process([str(domains.runs[name]) for name in ("crops", "sky")], config)
    with running(process), httpx.Client(base_url=process.address, timeout=120) as client:
        wait_until_ready(client)
        for text, name in (("wheat seed", "crops"), ("sun rain", "sky")):
            body = {"index": "crops", "query": text, "adapter": "auto", "explain": True}
            answer = client.post("/v1/search", json=body).json()
            assert answer["route"]["weights"] in ({name: 1.0}, {"base": 1.0})
            distances = answer["route"]["distances"]
            assert min(distances, key=distances.__getitem__) == name
            assert sum(distances.values()) == pytest.approx(1, abs=1e-3)
