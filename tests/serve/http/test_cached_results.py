"""Replies that are kept, over HTTP: the same as computed ones, and never of another index, model or key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from tests.chat_server import ChatServer
from tests.models.adapted import WORDS
from tests.serve.http.world import World, adapter_of, copy_run, served

ROOT = {"search": "/v1/search", "answer": "/v1/answer"}


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_run(world.farm, tmp_path_factory.mktemp("kept") / "farm")


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatServer]:
    with ChatServer(lambda _: "Rice [1], and invented [99].") as server:
        yield server


@pytest.fixture(scope="module")
def kept(world: World, run: Path, llm: ChatServer) -> Iterator[httpx.Client]:
    with served(world, run, reranker=world.reranker, llm=llm.url, semantic_entries=1000) as client:
        yield client


def ask(client: httpx.Client, path: str = "/v1/search", **body: Any) -> dict[str, Any]:
    reply = client.post(path, json={"query": "wheat rice", **body})
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-acclimate-model"] == "farm"
    found: dict[str, Any] = reply.json()
    return found


def number(client: httpx.Client, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.M)
    assert found is not None, name
    return float(found[1])


@pytest.mark.parametrize("body", [{}, {"rerank": 10}, {"mode": "dense", "top_k": 3, "explain": True}])
def test_the_same_request_again_has_the_same_reply(kept: httpx.Client, body: dict[str, Any]) -> None:
    first = ask(kept, **body)
    again = ask(kept, **body)
    assert first.pop("cache") is None and again.pop("cache") == "exact" and first == again
    assert ask(kept, **body, cache=False)["cache"] is None
    for other in ({"top_k": 5}, {"filter": "year > 2000"}, {"mode": "lexical"}, {"adapter": {"farm": 1.0}}):
        reply = kept.post("/v1/search", json={"query": "wheat rice", **body, **other})
        assert reply.json()["cache"] is None


def test_any_change_of_the_documents_is_another_epoch(kept: httpx.Client) -> None:
    ask(kept, query="soil water")
    assert ask(kept, query="soil water")["cache"] == "exact"
    document = {"id": "new", "text": "soil water soil water"}
    kept.put("/v1/documents", json={"documents": [document]})
    found = ask(kept, query="soil water")
    assert found["cache"] is None and "new" in {hit["id"] for hit in found["hits"]}
    kept.request("DELETE", "/v1/documents", json={"ids": ["new"]})
    found = ask(kept, query="soil water")
    assert found["cache"] is None and "new" not in {hit["id"] for hit in found["hits"]}
    assert ask(kept, query="soil water")["cache"] == "exact"


@pytest.fixture
def keys(base: Encoder, tmp_path: Path) -> dict[str, str]:
    """Settings of a service that two operators may use, with an adapter that can be loaded."""
    (tmp_path / "adapters" / "other").mkdir(parents=True)
    save_adapter(tmp_path / "adapters" / "other", adapter_of(base, 9, sides="query"), base.source)
    path, rights = tmp_path / "keys.toml", '["read", "write", "admin"]'
    path.write_text("\n".join(f'[keys.{name}]\nkey = "{key_of(name)}"\nrights = {rights}' for name in ("one", "two")))
    return {"keys": str(path), "adapter_root": str(tmp_path / "adapters")}


def key_of(name: str) -> str:
    return f"{name}-{'k' * 16}"


def test_a_swapped_adapter_is_another_epoch(world: World, run: Path, keys: dict[str, str]) -> None:
    with served(world, run, **keys) as client:
        client.headers["x-api-key"] = key_of("one")
        ask(client)
        assert ask(client)["cache"] == "exact"
        client.headers["x-api-key"] = key_of("two")
        assert ask(client)["cache"] is None, "another key has its own replies"
        assert ask(client)["cache"] == "exact"
        loaded = client.post("/v1/adapters", json={"name": "more", "path": "other"})
        assert loaded.status_code == 201, loaded.text
        assert ask(client)["cache"] is None


def test_answers_are_kept_too(kept: httpx.Client, llm: ChatServer) -> None:
    before = len(llm.requests)
    first = ask(kept, "/v1/answer", query="rice")
    again = ask(kept, "/v1/answer", query="rice")
    assert len(llm.requests) == before + 1 and first["struck"] == 1
    assert first.pop("cache") is None and again.pop("cache") == "exact" and first == again
    with kept.stream("POST", "/v1/answer", json={"query": "rice", "stream": True}) as reply:
        lines = [line for line in reply.iter_lines() if line]
    assert len(lines) == 2 and '"cache":"exact"' in lines[1] and first["answer"] in lines[0]


def test_requests_that_mean_the_same_are_served_once_that_is_sure(kept: httpx.Client) -> None:
    """Upper case makes another request of the same vector: this model's tokenizer does not see it."""
    text = " ".join(WORDS[2:10])
    spellings = [
        "".join(letter.upper() if bits >> place & 1 else letter for place, letter in enumerate(text[:9])) + text[9:]
        for bits in range(180)
    ]
    replies = [ask(kept, query=spelling, rerank=10) for spelling in dict.fromkeys(spellings)]
    by_cache = {name: [one for one in replies if one["cache"] == name] for name in (None, "exact", "semantic")}
    hits = by_cache["semantic"]
    assert hits and not by_cache["exact"] and "semantic" not in [one["cache"] for one in replies[:7]]
    for hit in hits:
        assert hit["hits"] == replies[0]["hits"] and hit["cache_estimate"]["similarity"] == pytest.approx(1.0)
        assert hit["query"] in spellings
    assert number(kept, 'acclimate_semantic_cache{what="hits"}') == len(hits)
    assert number(kept, 'acclimate_semantic_cache{what="shadows"}') >= 6
    assert number(kept, 'acclimate_semantic_cache{what="false_hits"}') == 0
    assert 0 < number(kept, "acclimate_semantic_cache_false_hit_bound") <= 1
    assert number(kept, 'acclimate_result_cache_uses{found="no"}') >= len(replies)
    assert ask(kept, query=text)["cache"] is None, "a search without reranking asks only the exact one"


def test_nothing_that_means_the_same_is_taken_from_another_key_filter_model_or_epoch(
    world: World, keys: dict[str, str], llm: ChatServer, tmp_path: Path
) -> None:
    """What is not even nominated cannot be served: it is neither a hit nor compared with what was computed."""
    run = copy_run(world.farm, tmp_path / "farm")  # another service writes into the other copy
    text = " ".join(WORDS[2:10])
    spellings = iter([text[:place].upper() + text[place:] for place in range(len(text))])
    settings: dict[str, Any] = {"results_mb": 0, "semantic_entries": 1000, "llm": llm.url, **keys}
    with served(world, run, reranker=world.reranker, **settings) as client:

        def nominated(path: str = "/v1/search", **body: Any) -> bool:
            before = counted()
            ask(client, path, query=next(spellings), **{"rerank": 10, **body})
            return counted() > before

        def counted() -> float:
            return sum(number(client, f'acclimate_semantic_cache{{what="{one}"}}') for one in ("hits", "shadows"))

        for name in ("one", "two"):
            client.headers["x-api-key"] = key_of(name)
            assert not nominated(), f"the first of key {name}"
            assert nominated(), f"the second of key {name}"
        for other in (
            {"filter": "year > 2000"},
            {"filter": "year > 2001"},
            {"top_k": 5},
            {"rerank": 11},
            {"mode": "dense"},
            {"adapter": "farm"},
            {"path": "/v1/answer"},
            {"path": "/v1/answer", "top_k": 5},
        ):
            assert not nominated(**other) and nominated(**other), other
        assert nominated()
        written = client.put("/v1/documents", json={"documents": [{"id": "new", "text": "soil"}]})
        assert written.status_code == 200, written.text
        assert not nominated() and nominated(), "a document was written"
        client.request("DELETE", "/v1/documents", json={"ids": ["new"]})
        assert not nominated() and nominated(), "a document was deleted"
        loaded = client.post("/v1/adapters", json={"name": "more", "path": "other"})
        assert loaded.status_code == 201, loaded.text
        assert not nominated() and nominated(), "an adapter was loaded"
