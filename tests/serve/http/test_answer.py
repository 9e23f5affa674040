"""Answers over HTTP, from a language model that answers, invents, refuses, is busy, slow, or breaks off."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from acclimate.files import read_json, write_json
from acclimate.models.encoder import Encoder
from acclimate.retrieval.answers import NO_ANSWER
from tests.chat_server import ERROR_INSIDE, ChatServer, Cut, Messages, Raw, Slow, Status
from tests.serve.http.test_embeddings import refused
from tests.serve.http.world import DOCUMENTS, PATIENCE_S, World, copy_run, served

QUESTION = {"query": "wheat rice"}
KNOWN = {one.id: one.text for one in DOCUMENTS}
SAYS: dict[str, str] = {}
"""What the language model answers: `text`."""


def said(_: Messages) -> str:
    return SAYS["text"]


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatServer]:
    with ChatServer(said) as server:
        yield server


@pytest.fixture(scope="module")
def asked(world: World, llm: ChatServer) -> Iterator[httpx.Client]:
    with served(world, world.farm, reranker=world.reranker, llm=llm.url, results_mb=0) as client:
        yield client


@pytest.fixture(autouse=True)
def _answer() -> None:
    SAYS["text"] = "Rice and wheat [2], water [1] and [99], soil [9]."


def answer(client: httpx.Client, **body: Any) -> dict[str, Any]:
    reply = client.post("/v1/answer", json={**QUESTION, **body})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def events(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    with client.stream("POST", "/v1/answer", json={**QUESTION, "stream": True, **body}) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) for line in lines]


def test_an_answer_cites_what_was_retrieved_and_nothing_else(asked: httpx.Client, llm: ChatServer) -> None:
    hits = asked.post("/v1/search", json={**QUESTION, "top_k": 8}).json()["hits"]
    found = answer(asked)
    assert found["answer"] == "Rice and wheat [2], water [1] and, soil." and found["answered"]
    assert [(one["number"], one["id"]) for one in found["citations"]] == [(2, hits[1]["id"]), (1, hits[0]["id"])]
    assert all(one["text"] == KNOWN[one["id"]] for one in found["citations"])
    assert found["struck"] == 2 and found["model"] == "any" and found["acclimate"]["model"] == "farm"
    assert found["usage"]["completion_tokens"] == 10 and found["usage"]["prompt_tokens"] > 50
    assert found["score"] > -1 and found["threshold"] is None
    chat = llm.requests[-1]["messages"]
    assert chat[1]["content"].count("\n\n[") == 8 and "stream" not in llm.requests[-1]


def test_which_documents_are_read(asked: httpx.Client, llm: ChatServer) -> None:
    found = answer(asked, top_k=3, filter="year >= 2020", rerank=20)
    chat = llm.requests[-1]["messages"][1]["content"]
    first = asked.post("/v1/search", json={**QUESTION, "top_k": 3, "filter": "year >= 2020", "rerank": 20}).json()
    wanted = "\n\n".join(f"[{place}] {hit['text']}" for place, hit in enumerate(first["hits"], 1))
    assert f"\n\n{wanted}\n\n" in chat and found["reranker_sha256"] == first["reranker_sha256"]
    assert answer(asked, model="farm")["acclimate"]["model"] == "farm"


def test_a_stream_shows_what_the_reply_says(asked: httpx.Client) -> None:
    *deltas, last = events(asked)
    assert len(deltas) > 3 and all(set(one) == {"delta"} for one in deltas)
    assert "".join(one["delta"] for one in deltas) == last["done"]["answer"]
    whole = answer(asked)
    assert last["done"] == whole


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_model_does_not_find_is_a_refusal(asked: httpx.Client, stream: bool) -> None:
    SAYS["text"] = NO_ANSWER
    found = events(asked, query="小麦在哪里")[-1]["done"] if stream else answer(asked, query="小麦在哪里")
    assert (found["answered"], found["answer"], found["citations"]) == (False, "文档中没有这个问题的答案。", [])


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_retrieved_is_a_refusal_without_the_model(asked: httpx.Client, llm: ChatServer, stream: bool) -> None:
    before = len(llm.requests)
    nothing = {"filter": "year > 9999"}
    found = events(asked, **nothing)[-1]["done"] if stream else answer(asked, **nothing)
    assert found["answered"] is False and found["score"] is None and len(llm.requests) == before


def test_below_the_threshold_nothing_is_asked(world: World, llm: ChatServer, farm: Encoder, tmp_path: Path) -> None:
    run = copy_run(world.farm, tmp_path / "farm")
    assert farm.adapter is not None
    refusal = {"threshold": 2.0, "model": farm.adapter.fingerprint}
    fusion = {"constant": 60, "dense_weight": 1, "lexical_weight": 1, "depth": 100, "space": farm.space.digest}
    write_json(run / "fusion.json", {**fusion, "refusal": refusal})
    before = len(llm.requests)
    with served(world, run, llm=llm.url) as client:
        found = answer(client)
        assert (found["answered"], found["threshold"]) == (False, 2.0) and found["score"] < 1.01
        page = client.get("/metrics").text
    assert 'acclimate_answers_total{outcome="refused by score"} 1.0' in page and len(llm.requests) == before
    choice = read_json(run / "fusion.json")
    write_json(run / "fusion.json", {**choice, "refusal": {**refusal, "model": "of another adapter"}})
    with served(world, run, llm=llm.url) as client:
        assert answer(client)["threshold"] is None


def test_a_busy_model_is_asked_again_and_then_given_up(asked: httpx.Client, llm: ChatServer) -> None:
    llm.fail(Status(429, retry_after="0"))
    assert answer(asked)["answered"]
    for stream in (False, True):
        llm.fail(Status(500, "out of memory", retry_after="0"), Status(500, "out of memory", retry_after="0"))
        error = refused(asked.post("/v1/answer", json={**QUESTION, "stream": stream}), 502, None)
        assert "the language model" in error["message"] and "out of memory" in error["message"]
    llm.fail(Status(401))
    assert refused(asked.post("/v1/answer", json=QUESTION), 502, None)["code"] == "language_model_failed"


@pytest.mark.parametrize("failure", [Cut(2), Cut(2, politely=True), ERROR_INSIDE, Raw("{")])
def test_what_breaks_in_the_middle_of_a_stream_is_its_last_event(
    asked: httpx.Client, llm: ChatServer, failure: Any
) -> None:
    llm.fail(failure)
    *deltas, last = events(asked)
    assert deltas and set(last) == {"error"} and last["error"]["code"] == "language_model_failed"
    assert answer(asked)["answered"], "the next one is answered"


def test_a_cut_whole_answer_is_asked_for_again(asked: httpx.Client, llm: ChatServer) -> None:
    llm.fail(Cut())
    assert answer(asked)["answered"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_is_too_slow_is_not_waited_for(world: World, llm: ChatServer, stream: bool) -> None:
    with served(world, world.farm, llm=llm.url, answer_deadline_s=0.5) as client:
        llm.fail(Slow(1.5))
        error = refused(client.post("/v1/answer", json={**QUESTION, "stream": stream}), 504, None)
        assert "not done within" in error["message"] or "was not done" in error["message"]


def test_who_hangs_up_is_not_written_for(world: World) -> None:
    """The model would write for minutes; its connection is closed once nobody reads."""
    with ChatServer(lambda _: "word " * 50_000) as endless, served(world, world.farm, llm=endless.url) as client:
        with client.stream("POST", "/v1/answer", json={**QUESTION, "stream": True}) as reply:
            assert next(reply.iter_lines()).startswith("data: ")
        end = time.monotonic() + PATIENCE_S
        while 'route="/v1/answer",status="499"' not in client.get("/metrics").text:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_requests_that_cannot_be_are_refused_by_their_field(asked: httpx.Client, client: httpx.Client) -> None:
    for body, status, field in (
        ({"query": ""}, 422, "query"),
        ({"query": " "}, 422, "query"),
        ({"query": "w", "top_k": 0}, 422, "top_k"),
        ({"query": "w", "rerank": 3}, 422, "rerank"),
        ({"query": "w", "model": "nobody"}, 404, "model"),
        ({"query": "w", "index": "nobody"}, 404, "index"),
        ({"query": "w", "filter": "year >"}, 422, "filter"),
        ({"query": "w", "temperature": 1}, 422, "temperature"),
    ):
        refused(asked.post("/v1/answer", json=body), status, field)
    error = refused(client.post("/v1/answer", json=QUESTION), 404, None)
    assert "--llm" in error["fix"]


def test_what_is_served_says_whether_it_answers(asked: httpx.Client, client: httpx.Client) -> None:
    info = asked.get("/info").json()
    assert info["language_model"] == "any" and info["indexes"] == ["farm"] and len(info["reranker_sha256"]) == 64
    assert client.get("/info").json()["language_model"] is None
