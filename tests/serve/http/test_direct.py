"""What is answered without the framework is answered as the framework would."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from acclimate.serve.direct import Direct
from acclimate.serve.edge import Exchange

FRAMEWORKS = "application/vnd.own+json"
"""JSON, by a name that only the framework takes for it."""
EMBEDDINGS: list[Any] = [
    {"model": "farm@query", "input": "wheat grows"},
    {"model": "farm", "input": ["wheat grows", "rain", "wheat grows"], "input_type": "document", "user": "anna"},
    {"model": "base", "input": ["rain"], "encoding_format": "base64", "dimensions": 32},
    {"model": "nobody", "input": "rain"},
    {"model": "farm", "input": "rain"},
    {"model": "farm@query", "input": "rain", "dimensions": 7},
    {"model": "farm@query", "input": [1, 2]},
    {"model": "farm@query", "input": []},
    {"model": "farm@query"},
    {"model": "farm@query", "input": ["rain", 1], "encoding_format": "neither"},
    ["rain"],
    None,
]
BODIES = [
    *(("/v1/embeddings", body) for body in EMBEDDINGS),
    ("/embed", {"model": "farm", "inputs": ["rain", "soil"], "prompt_name": "query"}),
    ("/embed", {"inputs": "rain"}),
    ("/v1/rerank", {"query": "rain", "documents": ["the sun", {"text": "rain in the field"}], "top_n": 1}),
    ("/v2/rerank", {"query": "rain", "documents": ["the sun", "rain"], "model": "nobody"}),
    ("/rerank", {"query": "rain", "texts": ["the sun", "rain"], "raw_scores": True}),
    ("/v1/search", {"query": "wheat rain", "index": "farm", "filter": "year >= 2005", "explain": True, "cache": False}),
    ("/v1/search", {"query": "wheat rain", "index": "farm", "top": 3}),
    ("/v1/search", {"query": "wheat rain"}),
    ("/v1/search", {"vector": [1.0], "index": "farm", "space": "none"}),
]


def replied(client: httpx.Client, path: str, content: bytes, kind: str) -> tuple[int, dict[str, str], Any]:
    reply = client.post(path, content=content, headers={"x-request-id": "mine", "content-type": kind})
    said = json.loads(reply.text.replace(f"(content-type: {kind})", ""))  # one error says what was sent
    if isinstance(said, dict):
        said.pop("id", None)  # a new one each time
    return reply.status_code, dict(reply.headers) | {"content-length": "", "date": ""}, said


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_a_reply_is_that_of_the_framework(client: httpx.Client, path: str, body: Any) -> None:
    content = json.dumps(body).encode()
    whole = replied(client, path, content, FRAMEWORKS)
    assert replied(client, path, content, "application/json") == whole
    assert replied(client, path, content, "Application/JSON ; charset=utf-8") == whole


@pytest.mark.parametrize("content", [b"", b"{", b"NaN", b'{"input": "\xff"}'])
def test_what_is_no_json_is_said_as_by_the_framework(client: httpx.Client, content: bytes) -> None:
    whole = replied(client, "/v1/embeddings", content, FRAMEWORKS)
    assert replied(client, "/v1/embeddings", content, "application/json") == whole
    assert whole[0] in (400, 422)


def test_the_routes_of_a_direct_answer_are_counted_and_logged_alike(client: httpx.Client) -> None:
    def count() -> float:
        lines = client.get("/metrics").text.splitlines()
        start = 'acclimate_requests_total{method="POST",route="/v1/embeddings",status="200"}'
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(start)), 0.0)

    before = count()
    for kind in ("application/json", FRAMEWORKS):
        assert replied(client, "/v1/embeddings", json.dumps(EMBEDDINGS[0]).encode(), kind)[0] == 200
    assert count() == before + 2


class Body(BaseModel):
    text: str


@pytest.mark.parametrize(
    ("kind", "content", "by"),
    [
        (b"application/json", b'{"text": "a"}', "direct"),
        (b"application/json; charset=utf-8", b'{"text": "a"}', "direct"),
        (b"text/plain", b'{"text": "a"}', "framework"),
        (b"application/json", b'{"text": 1}', "framework"),
        (b"application/json", b'{"text"', "framework"),
    ],
)
def test_only_what_is_right_in_every_respect_is_answered_directly(kind: bytes, content: bytes, by: str) -> None:
    router = APIRouter()

    @router.post("/echo")
    async def echo(request: Request, body: Body) -> Response:  # noqa: ARG001
        return Response(body.text)

    seen: list[str] = []

    class Framework(FastAPI):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
            seen.append("framework")

    async def receive() -> Message:
        raise AssertionError("the edge has read the body")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            seen.append("direct")

    exchange = Exchange("id", time.perf_counter(), {b"content-type": kind}, body=content)
    scope: Scope = {"type": "http", "method": "POST", "path": "/echo", "headers": [], "state": {"exchange": exchange}}
    asyncio.run(Direct(Framework(), router.routes)(scope, receive, send))
    assert seen == [by]
    assert ("route" in scope) == (by == "direct")
