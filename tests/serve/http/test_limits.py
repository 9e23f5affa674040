"""Requests that are too large, too slow, broken, or left alone get a clear answer or none, and nothing leaks."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvloop

from acclimate.serve.connections import _Patience
from tests.models.adapted import WORDS
from tests.serve.http.test_embeddings import refused
from tests.serve.http.world import PATIENCE_S, World, copy_run, served

IDLE_S = 0.5
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def hasty(world: World) -> Iterator[httpx.Client]:
    """Of a service that waits half a second for its clients, and takes half a megabyte."""
    with served(world, world.farm, idle_s=IDLE_S, max_body_mb=0.5, max_inputs=100, max_request_tokens=500) as client:
        yield client


def connected(client: httpx.Client) -> socket.socket:
    place = urlsplit(str(client.base_url))
    return socket.create_connection((place.hostname or "", place.port or 0), timeout=PATIENCE_S)


def reply_of(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_client_is_not_given_up_for_what_held_up_the_event_loop() -> None:
    """After a callback of a socket uvloop runs timers that are due, before it reads from other sockets."""
    given_up: list[bool] = []

    async def served() -> None:
        loop, (ours, theirs), (busy, sender) = asyncio.get_running_loop(), socket.socketpair(), socket.socketpair()
        connection: Any = SimpleNamespace(loop=loop, transport=SimpleNamespace(abort=partial(given_up.append, True)))
        patience = _Patience(connection, 0.1)

        def hold_up() -> None:
            loop.remove_reader(busy)
            theirs.send(b"in time")
            time.sleep(0.2)

        patience.begin()
        loop.add_reader(ours, patience.end)
        loop.add_reader(busy, hold_up)
        sender.send(b"much to do")
        await asyncio.sleep(0.4)
        loop.remove_reader(ours)
        for one in (ours, theirs, busy, sender):
            one.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(served())
    assert not given_up


def test_what_was_stored_before_an_error_is_said(world: World, tmp_path: Path) -> None:
    """The first document is a part of its own; the others together have more tokens than this service takes."""
    run = copy_run(world.farm, tmp_path / "farm")
    texts = [" ".join(WORDS[2:8] * 9000), *(" ".join(WORDS[2:8]) + f" {number}" for number in range(90))]
    documents = [{"id": f"part{place:02}", "text": text} for place, text in enumerate(texts)]
    with served(world, run, max_request_tokens=500) as client:
        error = refused(client.put("/v1/documents", json={"documents": documents}), 413, "input")
        assert "of 91 documents the first 1 are stored" in error["message"]
        assert client.get("/v1/documents/part00").status_code == 200
        assert client.get("/v1/documents/part01").status_code == 404


def test_a_body_of_a_hundred_megabytes_is_refused_before_it_is_read(hasty: httpx.Client) -> None:
    with connected(hasty) as connection:
        connection.sendall(HEAD + b"content-length: 100000000\r\nexpect: 100-continue\r\n\r\n")
        head = connection.recv(65536)
    assert head.startswith(b"HTTP/1.1 413") and b'"code":"too_large"' in head
    sent = hasty.post("/v1/embeddings", content=bytes(100_000_000), headers={"content-type": "application/json"})
    refused(sent, 413, None)


def test_a_body_without_a_length_is_cut_off_at_the_limit(hasty: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(80):
            yield b"x" * 10_000

    refused(hasty.post("/v1/embeddings", content=parts(), headers={"content-type": "application/json"}), 413, None)
    assert hasty.get("/livez").status_code == 200


def test_many_texts_and_many_tokens_are_refused_whatever_their_shape(hasty: httpx.Client) -> None:
    long = [f"{word} the sun in the {other} field" for word in WORDS for other in WORDS]
    for texts in (["soil"] * 101, long[:99]):
        refused(hasty.post("/v1/embeddings", json={"input": texts, "model": "farm@query"}), 413, "input")
    million = json.dumps({"input": ["a"] * 10**6, "model": "farm@query"}).encode()
    refused(hasty.post("/v1/embeddings", content=million, headers={"content-type": "application/json"}), 413, None)
    documents = [{"id": str(number), "text": "soil"} for number in range(101)]
    refused(hasty.put("/v1/documents", json={"documents": documents}), 413, "documents")


def test_a_million_inputs_that_fit_the_body_are_refused(world: World) -> None:
    with served(world, world.farm, max_body_mb=50) as client:
        for item in ("a", 1, 1.5, None, []):
            body = {"input": [item] * 10**6, "model": "farm@query"}
            reply = client.post("/v1/embeddings", json=body)
            assert reply.status_code in (400, 413, 422) and len(reply.content) < 2000


@pytest.mark.parametrize(
    "content", [b'{"input": "\xff"}', b'{"input": "\\ud800"}', b"{", b"[" * 100_000, b'{"a": NaN}', b"\0"]
)
def test_what_is_no_json_is_refused(hasty: httpx.Client, content: bytes) -> None:
    refused(hasty.post("/v1/embeddings", content=content, headers={"content-type": "application/json"}), 400, None)


def test_json_of_another_type_and_paths_and_methods_that_are_not_there(hasty: httpx.Client) -> None:
    refused(hasty.post("/v1/embeddings", json=[1]), 422, None)
    refused(hasty.post("/v1/embeddings", content=b"{}", headers={"content-type": "text/plain"}), 422, None)
    assert "GET /docs" in refused(hasty.get("/v1/nothing"), 404, None)["fix"]
    reply = hasty.get("/v1/embeddings")
    assert "POST" in refused(reply, 405, None)["message"] and reply.headers["allow"] == "POST"


def test_what_is_no_http_is_refused(hasty: httpx.Client) -> None:
    with connected(hasty) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        reply = reply_of(connection)
    assert reply.startswith(b"HTTP/1.1 400") and json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_a_head_without_an_end_is_refused(hasty: httpx.Client) -> None:
    with connected(hasty) as connection:
        connection.sendall(HEAD + b"x-more: " + b"x" * 70_000)
        reply = reply_of(connection)
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert hasty.get("/livez", headers={"x-more": "x" * 60_000}).status_code == 200


def test_a_request_id_is_taken_if_it_can_be_logged(hasty: httpx.Client) -> None:
    assert hasty.get("/livez", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert hasty.get("/livez", headers={"x-request-id": 'a"b'}).headers["x-request-id"] != 'a"b'


def test_a_slow_body_is_not_waited_for(hasty: httpx.Client) -> None:
    with connected(hasty) as connection:
        connection.sendall(HEAD + b"content-length: 100\r\n\r\n{")
        reply = reply_of(connection)
    assert reply.startswith(b"HTTP/1.1 408") and b"connection: close" in reply


@pytest.mark.parametrize("sent", [b"", HEAD[:20], b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\nGET /li"])
def test_a_connection_that_says_nothing_is_given_up(hasty: httpx.Client, sent: bytes) -> None:
    with connected(hasty) as connection:
        connection.sendall(sent)
        reply = reply_of(connection)  # returns, because the service closes it
    assert (b"alive" in reply) == sent.startswith(b"GET")


def test_half_a_head_behind_a_whole_request_is_given_up_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acclimate.serve.server.KEEP_ALIVE_S", 10 * PATIENCE_S)
    with served(world, world.farm, idle_s=IDLE_S) as client, connected(client) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\nGET /li")
        assert b"alive" in reply_of(connection)  # returns, because the service closes it


def test_a_client_that_takes_no_reply_is_given_up(hasty: httpx.Client) -> None:
    place = urlsplit(str(hasty.base_url))
    body = json.dumps({"input": ["soil"] * 100, "model": "farm@query"}).encode()
    request = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect((place.hostname, place.port))
        with pytest.raises(OSError):
            for _ in range(100_000):
                connection.sendall(request)


def test_who_hangs_up_leaves_nothing_behind(hasty: httpx.Client) -> None:
    files = open_files()
    body = json.dumps({"input": ["the sun in the field"] * 40, "model": "farm@query"}).encode()
    head = HEAD + b"content-length: %d\r\n\r\n" % len(body)
    whole = [head[:30], head, head + body[:50], head + body]
    for number in range(40):
        with connected(hasty) as connection:
            connection.sendall(whole[number % len(whole)])
    for _ in range(5):
        connected(hasty).close()
    until(lambda: open_files() <= files)

    def nothing_waits() -> bool:
        page = hasty.get("/metrics").text
        return "acclimate_requests_in_flight 1.0" in page and "acclimate_queue_rows 0.0" in page

    until(nothing_waits)
    reply = hasty.post("/v1/embeddings", json={"input": "soil", "model": "farm@query"})
    assert reply.status_code == 200


def test_more_than_can_be_done_is_refused_and_soon_after_all_is_well(world: World) -> None:
    long = [f"{word} {other} {third}" for word in WORDS for other in WORDS for third in WORDS]
    seen: set[int] = set()

    async def flood(address: str) -> None:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=address, limits=limits, timeout=PATIENCE_S) as client:

            async def ask(number: int) -> None:
                texts = [f"{text} {number}" for text in long[:300]]
                reply = await client.post("/v1/embeddings", json={"input": texts, "model": "farm@query"})
                seen.add(reply.status_code)
                if reply.status_code == 429:
                    assert int(reply.headers["retry-after"]) >= 1
                    assert set(reply.json()["error"]) >= {"message", "field", "fix"}

            await asyncio.gather(*(ask(number) for number in range(100)))

    with served(world, world.farm, deadline_s=2, cache_mb=0) as client:
        asyncio.run(flood(str(client.base_url)))
        # 413: on a slow machine one such request alone takes longer than its deadline.
        assert seen <= {200, 413, 429, 504} and seen & {413, 429}

        def answers() -> bool:
            return client.post("/v1/embeddings", json={"input": "soil", "model": "farm@query"}).status_code == 200

        until(answers)
        until(lambda: "acclimate_queue_rows 0.0" in client.get("/metrics").text)
