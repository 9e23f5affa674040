"""Search, documents and reranking over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from acclimate.models.encoder import Encoder
from acclimate.models.reranker import Reranker
from tests.serve.http.test_embeddings import refused
from tests.serve.http.world import DOCUMENTS, World

FARM = {"index": "farm"}


@pytest.fixture
def written(client: httpx.Client) -> Iterator[list[str]]:
    """Ids that are deleted when the test is over."""
    ids: list[str] = []
    yield ids
    client.request("DELETE", "/v1/documents", json={"ids": [*ids, "nobody"], **FARM})


def found(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    reply = client.post("/v1/search", json={**FARM, **body})
    assert reply.status_code == 200, reply.text
    hits: list[dict[str, Any]] = reply.json()["hits"]
    return hits


def test_dense_search_is_that_of_the_run(client: httpx.Client, farm: Encoder) -> None:
    query = farm.encode(["wheat rice"], "query")[0]
    scores = farm.encode([one.text for one in DOCUMENTS], "document") @ query
    hits = found(client, query="wheat rice", mode="dense", top_k=30)
    best = [DOCUMENTS[place].text for place in np.argsort(-scores, kind="stable")[:3]]
    assert [hit["text"] for hit in hits[:3]] == best
    np.testing.assert_allclose([hit["score"] for hit in hits], sorted(scores, reverse=True), atol=2e-3)
    vector = query.tolist()
    assert found(client, vector=vector, top_k=30, space=farm.space.digest) == hits


def test_filters_modes_and_pages_of_a_search(client: httpx.Client) -> None:
    for given in ("year >= 2020", {"field": "year", "gte": 2020}):
        hits = found(client, query="wheat rice", filter=given, top_k=30, mode="lexical")
        assert hits and all(hit["metadata"]["year"] >= 2020 for hit in hits)
    assert all("wheat" in hit["text"] for hit in found(client, query="wheat", mode="lexical"))
    assert len(found(client, query="wheat", top_k=1)) == 1


def test_an_explained_search_says_by_which_rank_each_hit_came_about(client: httpx.Client) -> None:
    reply = client.post("/v1/search", json={**FARM, "query": "wheat rice", "explain": True}).json()
    assert reply["fusion"]["constant"] == 60
    for rank, hit in enumerate(reply["hits"], 1):
        why = hit["explanation"]
        assert why["hybrid"] == {"rank": rank, "score": hit["score"]}
        ranks = [why[mode]["rank"] for mode in ("dense", "lexical") if mode in why]
        assert hit["score"] == pytest.approx(sum(1 / (60 + rank) for rank in ranks))


def test_a_reranked_search_has_the_rerankers_order(client: httpx.Client, world: World) -> None:
    hits = found(client, query="wheat rice", rerank=10, top_k=4)
    candidates = found(client, query="wheat rice", top_k=10)
    model = Reranker.load(str(world.reranker), device="cpu", dtype="float32")
    scores = model.score("wheat rice", [hit["text"] for hit in candidates])
    np.testing.assert_allclose([hit["score"] for hit in hits], sorted(scores, reverse=True)[:4], atol=1e-5)


def test_another_adapter_and_a_mixture_encode_the_query(client: httpx.Client) -> None:
    assert found(client, query="wheat", adapter={"farm": 1.0}) == found(client, query="wheat", adapter="farm")
    for unknown in ("nobody", {"farm": 0.5, "nobody": 1}):
        refused(client.post("/v1/search", json={**FARM, "query": "wheat", "adapter": unknown}), 404, "adapter")
    refused(client.post("/v1/search", json={**FARM, "query": "wheat", "adapter": "bank"}), 422, "adapter")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "query"),
        ({"query": " "}, 422, "query"),
        ({"query": "w", "top_k": 10**9}, 422, "top_k"),
        ({"query": "w", "top_k": 0}, 422, "top_k"),
        ({"query": "w", "rerank": 3}, 422, "rerank"),
        ({"query": "w", "rerank": 9999}, 422, "rerank"),
        ({"query": "w", "mode": "best"}, 422, "mode"),
        ({"query": "w", "index": "nobody"}, 404, "index"),
        ({"query": "w", "index": None}, 422, "index"),
        ({"query": "w", "index": "bank"}, 404, "index"),
        ({"query": "w", "unknown": 1}, 422, "unknown"),
        ({"query": "w", "filter": "year >"}, 422, "filter"),
        ({"query": "w", "filter": {"field": "year"}}, 422, "filter"),
        ({"vector": [1.0, 2.0]}, 422, "vector"),
        ({"vector": [0.0] * 32}, 422, "vector"),
        ({"vector": [1.0] * 32, "adapter": "farm"}, 422, "adapter"),
        ({"vector": [1.0] + [0.0] * 31, "space": "0" * 64}, 422, "space"),
        ({"vector": [1.0] + [0.0] * 31, "mode": "hybrid"}, 422, "query"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_its_field(
    client: httpx.Client, body: dict[str, Any], status: int, field: str
) -> None:
    refused(client.post("/v1/search", json={**FARM, **body}), status, field)


def test_deep_filters_and_vectors_that_are_not_finite_are_refused(client: httpx.Client) -> None:
    deep: dict[str, Any] = {"field": "year", "gte": 2020}
    for _ in range(200):
        deep = {"not": deep}
    refused(client.post("/v1/search", json={**FARM, "query": "w", "filter": deep}), 422, "filter")
    heads = {"content-type": "application/json"}
    for content in ('{"vector": [1e999]}', '{"vector": [NaN]}', '{"filter": ' + '{"not": ' * 5000 + "1" + "}" * 5001):
        refused(client.post("/v1/search", content=content, headers=heads), 400, None)


def test_a_document_is_found_once_it_is_acknowledged(client: httpx.Client, written: list[str]) -> None:
    written += ["a/b c", "小麦"]
    texts = {"a/b c": "seed leaf water rice wheat sun zanzibar", "小麦": "soil"}
    put = {"documents": [{"id": name, "text": text, "metadata": {"crop": ["x", "y"]}} for name, text in texts.items()]}
    reply = client.put("/v1/documents", json={**put, **FARM}).json()
    assert (reply["documents"], reply["encoded"]) == (2, 2) and reply["acclimate"]["model"] == "farm"
    assert found(client, query="zanzibar", top_k=1, mode="lexical")[0]["id"] == "a/b c"
    assert found(client, query="soil", filter='crop = "y"', top_k=5)[0]["metadata"] == {"crop": ["x", "y"]}
    for name, text in texts.items():
        assert client.get(f"/v1/documents/{name}", params=FARM).json()["text"] == text
    again = client.put("/v1/documents", json={**put, **FARM}).json()
    assert (again["encoded"], again["unchanged"]) == (0, 2)
    assert client.request("DELETE", "/v1/documents", json={"ids": written, **FARM}).json()["deleted"] == 2
    refused(client.get("/v1/documents/小麦", params=FARM), 404, "id")


def test_documents_are_listed_page_by_page(client: httpx.Client) -> None:
    ids: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/v1/documents", params={**FARM, "limit": 7, **after}).json()
        ids += [one["id"] for one in page["documents"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert ids == [one.id for one in DOCUMENTS] and page["count"] == 30


@pytest.mark.parametrize(
    ("documents", "field"),
    [
        ([], "documents"),
        ([{"id": "x", "text": ""}], "documents.0"),
        ([{"id": "", "text": "t"}], "documents.0.id"),
        ([{"id": "x", "text": "t"}, {"id": "x", "text": "u"}], "documents.1"),
        ([{"id": "x", "text": "a\0b"}], "documents.0"),
        ([{"id": "x", "text": "t", "metadata": {"m": {"deep": 1}}}], "documents.0"),
        ([{"id": "x", "text": "t", "vector": [1]}], "documents.0.vector"),
        ([{"id": "x"}], "documents.0.text"),
    ],
)
def test_documents_that_no_index_takes_are_refused_and_nothing_is_written(
    client: httpx.Client, documents: list[dict[str, Any]], field: str
) -> None:
    whole = [{"id": "whole", "text": "soil"}, *documents] if len(documents) == 1 else documents
    if len(documents) == 1:
        field = field.replace("documents.0", "documents.1")
    refused(client.put("/v1/documents", json={"documents": whole, **FARM}), 422, field)
    assert client.get("/v1/documents/whole", params=FARM).status_code == 404


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_rerank_is_that_of_the_reranker(client: httpx.Client, world: World, path: str) -> None:
    texts = ["rice", "wheat grows in the field", "soil"]
    logits = Reranker.load(str(world.reranker), device="cpu", dtype="float32").score("wheat", texts)
    wanted = 1 / (1 + np.exp(-logits.astype(np.float64)))
    body = {"query": "wheat", "documents": [texts[0], {"text": texts[1]}, texts[2]], "model": "reranker"}
    rows = client.post(path, json={**body, "return_documents": True}).json()["results"]
    assert [row["relevance_score"] for row in rows] == sorted((row["relevance_score"] for row in rows), reverse=True)
    for row in rows:
        assert row["relevance_score"] == pytest.approx(wanted[row["index"]], abs=1e-5)
        assert row["document"]["text"] == texts[row["index"]]
    reply = client.post(path, json={**body, "top_n": 1})
    first = reply.json()
    assert re.fullmatch(r"[0-9a-f]{64}", first["reranker_sha256"])
    assert reply.headers["x-acclimate-reranker-sha256"] == first["reranker_sha256"]
    assert len(first["results"]) == 1 and first["usage"]["total_tokens"] > 0
    by_tei = client.post("/rerank", json={"query": "wheat", "texts": texts, "raw_scores": True})
    tei = by_tei.json()
    assert by_tei.headers["x-acclimate-reranker-sha256"] == first["reranker_sha256"]
    reranked = client.post("/v1/search", json={**FARM, "query": "wheat", "rerank": 10}).json()
    assert reranked["reranker_sha256"] == first["reranker_sha256"]
    assert {row["index"]: row["score"] for row in tei} == pytest.approx(dict(enumerate(logits.tolist())), abs=1e-5)


def test_rerank_requests_that_cannot_be_are_refused(client: httpx.Client) -> None:
    refused(client.post("/v1/rerank", json={"query": "w", "documents": []}), 422, "documents")
    refused(client.post("/v1/rerank", json={"query": "w", "documents": [{"body": "x"}]}), 422, "documents.0")
    refused(client.post("/v1/rerank", json={"query": "w", "documents": ["x"], "model": "other"}), 404, "model")
