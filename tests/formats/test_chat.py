"""The chat client against a real server that fails in every way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from acclimate.errors import UsageError
from acclimate.formats.chat import ChatClient, ChatError, Completion
from tests.chat_server import ERROR_INSIDE, MALFORMED, NO_CHOICE, ChatServer, Cut, Failure, Slow, Status

ASKED = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "what is rust of wheat"}]
REPEATED = "what is rust of wheat"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def client(server: ChatServer, **more: Any) -> ChatClient:
    return ChatClient(server.url, "writer", **{"first_wait_s": 0.01, **more})


def test_a_whole_answer(server: ChatServer) -> None:
    with client(server, api_key="secret") as asking:
        assert asking.complete(ASKED, 40, 0.5) == Completion(REPEATED, 7, 5)
    [body] = server.requests
    assert body == {"model": "writer", "messages": ASKED, "max_tokens": 40, "temperature": 0.5}
    assert server.headers[0]["authorization"] == "Bearer secret"


def test_a_stream_gives_the_same_answer_in_pieces(server: ChatServer) -> None:
    with client(server) as asking:
        stream = asking.stream(ASKED, 40)
        assert list(stream) == ["what", " is", " rust", " of", " wheat"]
        assert (stream.prompt_tokens, stream.completion_tokens) == (7, 5)
    assert server.requests[0]["stream"] is True


def test_a_stream_that_nobody_reads_on_gives_its_connection_back(server: ChatServer) -> None:
    with client(server) as asking:
        stream = asking.stream(ASKED, 40)
        assert next(stream) == "what"
        stream.close()
        assert list(stream) == []
        assert asking.complete(ASKED, 40).text == REPEATED


def test_the_key_is_the_environments(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_LLM_API_KEY", "from outside")
    client(server).complete(ASKED, 40)
    monkeypatch.delenv("ACCLIMATE_LLM_API_KEY")
    client(server).complete(ASKED, 40)
    assert server.headers[0]["authorization"] == "Bearer from outside"
    assert "authorization" not in server.headers[1]


def test_tokens_that_are_not_counted_are_none() -> None:
    with ChatServer(usage=False) as server:
        assert client(server).complete(ASKED, 40) == Completion(REPEATED, 0, 0)


@pytest.mark.parametrize(
    "failures",
    [
        [Status(429)],
        [Status(429, retry_after="0")],
        [Status(429, retry_after="Thu, 01 Jan 2015 00:00:00 GMT")],
        [Status(503, retry_after="soon")],
        [Status(500), Status(502), Status(429)],
        [Cut()],
        [Slow(0.5)],
    ],
    ids=str,
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_what_passes_is_asked_again(server: ChatServer, failures: list[Failure], streamed: bool) -> None:
    if streamed and isinstance(failures[0], Cut):
        pytest.skip("a stream that has begun is not begun again")
    server.fail(*failures)
    asking = client(server, timeout_s=0.2)
    text = "".join(asking.stream(ASKED, 40)) if streamed else asking.complete(ASKED, 40).text
    assert text == REPEATED
    assert len(server.requests) == len(failures) + 1


def test_the_wait_that_is_asked_for_is_kept(server: ChatServer) -> None:
    server.fail(Status(429, retry_after="0.3"))
    client(server, first_wait_s=0).complete(ASKED, 40)
    first, second = server.times
    assert second - first >= 0.3


def test_a_wait_of_hours_is_not_sat_out(server: ChatServer) -> None:
    server.fail(Status(429, "quota used up", retry_after="7200"))
    with pytest.raises(
        ChatError, match=r"status 429 \(quota used up\), for the next 7200 s\. Start again then"
    ) as info:
        client(server).complete(ASKED, 40)
    assert info.value.status == 429 and len(server.requests) == 1


def test_retries_end(server: ChatServer) -> None:
    server.fail(*[Status(500, "no memory")] * 3)
    with pytest.raises(ChatError, match=r"status 500 \(no memory\), 3 times") as info:
        client(server, retries=2).complete(ASKED, 40)
    assert info.value.status == 500 and len(server.requests) == 3


@pytest.mark.parametrize(
    ("code", "said"),
    [(400, "too long"), (401, "ACCLIMATE_LLM_API_KEY"), (403, "ACCLIMATE_LLM_API_KEY"), (404, "the model writer")],
)
def test_what_cannot_succeed_is_not_asked_again(server: ChatServer, code: int, said: str) -> None:
    server.fail(Status(code, "too long"))
    with pytest.raises(ChatError, match=said) as info:
        client(server).complete(ASKED, 40)
    assert info.value.status == code and len(server.requests) == 1


@pytest.mark.parametrize("failure", [MALFORMED, NO_CHOICE, ERROR_INSIDE], ids=["json", "choice", "error"])
def test_what_is_no_answer_is_an_error(server: ChatServer, failure: Failure) -> None:
    server.fail(failure)
    with pytest.raises(ChatError, match="no chat completion"):
        client(server).complete(ASKED, 40)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Cut(2), "broke off in the middle"),
        (Cut(2, politely=True), "broke off in the middle"),
        (MALFORMED, "no piece of a chat completion"),
        (ERROR_INSIDE, "gave up in the middle of an answer: out of memory"),
    ],
    ids=["cut", "politely cut", "json", "error"],
)
def test_a_stream_that_breaks_says_so(server: ChatServer, failure: Failure, said: str) -> None:
    server.fail(failure)
    read = ""
    with client(server) as asking, pytest.raises(ChatError, match=said):
        for piece in asking.stream(ASKED, 40):
            read += piece
    assert read and read in REPEATED
    assert len(server.requests) == 1


def test_parameters_that_a_model_refuses_are_left_out() -> None:
    with ChatServer(refused=("max_tokens", "temperature")) as server:
        asking = client(server)
        assert asking.complete(ASKED, 40).text == REPEATED
        assert asking.complete(ASKED, 40).text == REPEATED
        assert server.requests[-1] == {"model": "writer", "messages": ASKED, "max_completion_tokens": 40}
        assert len(server.requests) == 4, "two refusals, then two answers"


def test_the_rate_holds_over_threads(server: ChatServer) -> None:
    asking = client(server, requests_per_minute=1200)
    started = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: asking.complete(ASKED, 40), range(6)))
    assert time.monotonic() - started >= 5 * 60 / 1200, "six starts lie five distances apart on any machine"


def test_nobody_there() -> None:
    with ChatServer() as gone:
        pass
    with pytest.raises(ChatError, match=r"http://127\.0\.0\.1:\d+/v1/chat/completions cannot be reached"):
        client(gone, retries=1).complete(ASKED, 40)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1", "http://", "no address"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="no address of an endpoint"):
        ChatClient(url, "writer")


def test_the_address_may_be_whole_and_its_secrets_are_not_shown() -> None:
    for url in ("http://me:word@host/v1", "http://me:word@host/v1/", "http://me:word@host/v1/chat/completions?key=k"):
        asking = ChatClient(url, "writer")
        assert asking.url.path == "/v1/chat/completions"
        assert asking.shown_url == "http://host/v1/chat/completions"
