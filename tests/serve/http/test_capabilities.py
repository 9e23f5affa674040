"""What a client learns of a service, and of where a query's words are; the files of the page."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from acclimate.models.encoder import Encoder
from acclimate.serve.routes.capabilities import MAX_VALUES, fields_of
from acclimate.serve.routes.page import MEDIA_TYPES
from tests.serve.http.test_access import FILE, READER, key
from tests.serve.http.test_embeddings import refused
from tests.serve.http.world import DOCUMENTS, World, adapter_of, served, write_run

PAGE = Path(__file__).resolve().parents[3] / "src" / "acclimate" / "serve" / "page"


def test_a_service_says_what_it_can_do(client: httpx.Client, world: World) -> None:
    found = client.get("/v1/capabilities").json()
    assert (
        found["features"]["rerank"]
        == client.post("/v1/rerank", json={"query": "a", "documents": ["b"]}).json()["model"]
    )
    farm, bank = found["indexes"]
    assert (farm["name"], farm["model"], farm["backend"]) == ("farm", "farm", "local")
    assert farm["documents"] == len(DOCUMENTS)
    assert farm["models"] == ["farm"]  # its adapter changes documents: neither the base nor the bank can search it
    assert farm["fields"] == [
        {"name": "year", "kind": "number", "documents": 30, "values": [], "least": 2000.0, "most": 2029.0}
    ]
    assert farm["problem"] is None
    assert (bank["documents"], bank["models"]) == (0, []) and "no index" in bank["problem"]
    assert set(found["caches"]) == {"embeddings", "results"}
    for cache in found["caches"].values():
        assert set(cache) == {"entries", "bytes", "hits", "misses"}
    assert str(world.farm) not in client.get("/v1/capabilities").text


def test_an_index_of_base_vectors_is_searched_by_the_base_and_by_adapters_of_queries(
    world: World, base: Encoder, tmp_path: Path
) -> None:
    write_run(tmp_path / "own", base, adapter_of(base, 2, sides="query"))
    with served(world, tmp_path / "own", cache_mb=0, results_mb=0) as client:
        client.put("/v1/documents", json={"documents": [{"id": "a", "text": "wheat rust"}]})
        found = client.get("/v1/capabilities").json()
        assert found["indexes"][0]["models"] == ["base", "own"]
        assert (found["features"]["rerank"], found["caches"]) == (None, {})


def test_fields_and_their_values() -> None:
    few = [{"crop": ("wheat", "rice"), "dry": True}, {"crop": "rice", "size": 3}, {"size": 2.5, "odd": "x"}, {"odd": 1}]
    assert fields_of(few) == [
        {"name": "crop", "kind": "text", "documents": 2, "values": ["rice", "wheat"]},
        {"name": "size", "kind": "number", "documents": 2, "values": [3, 2.5], "least": 2.5, "most": 3.0},
        {"name": "odd", "kind": "mixed", "documents": 2, "values": ["x", 1]},
        {"name": "dry", "kind": "flag", "documents": 1, "values": [True]},
    ]
    (many,) = fields_of({"id": str(number)} for number in range(MAX_VALUES + 1))
    assert many["values"] == []


def test_a_search_says_where_the_words_of_the_query_are(client: httpx.Client) -> None:
    body = {"index": "farm", "query": "wheat leaf", "mode": "lexical", "highlight": True}
    hits = client.post("/v1/search", json=body).json()["hits"]
    assert hits
    for hit in hits:
        assert {hit["text"][start:end] for start, end in hit["highlights"]} <= {"wheat", "leaf", "wheat leaf"}
        assert hit["highlights"]
    assert "highlights" not in client.post("/v1/search", json={**body, "highlight": False}).json()["hits"][0]


def test_the_page_is_open_to_all_and_strict(world: World, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(FILE)
    with served(world, world.farm, keys=str(keys)) as client:
        reply = client.get("/")
        assert reply.status_code == 200 and reply.headers["content-type"] == "text/html; charset=utf-8"
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert client.get("/", headers={"if-none-match": reply.headers["etag"]}).status_code == 304
        for file in PAGE.iterdir():
            sent = client.get(f"/page/{file.name}")
            assert sent.content == file.read_bytes()
            assert sent.headers["content-type"] == MEDIA_TYPES[file.suffix[1:]]
            assert sent.headers["x-content-type-options"] == "nosniff"
        refused(client.get("/page/nothing.js"), 404, None)
        for sly in ("/page/%2e%2e/schemas.py", "/page/..%2fschemas.py", "/page/../v1/models"):
            assert client.get(sly).status_code in (401, 404)
        refused(client.get("/v1/capabilities"), 401, None)
        assert client.get("/v1/capabilities", headers=key(READER)).status_code == 200


@pytest.mark.parametrize("file", sorted(PAGE.iterdir()), ids=lambda file: file.name)
def test_the_page_loads_from_nowhere_else(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in text and "https:" not in text and "//cdn" not in text
    assert "innerHTML" not in text and "eval(" not in text
    assert len(text.splitlines()) <= 400
