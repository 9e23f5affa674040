"""A small HTTP server that speaks OpenAI's chat completions, streams, and fails in every way on demand.

with ChatServer(lambda messages: "an answer") as server:
    server.fail(Status(429, retry_after="0"), Cut(), MALFORMED)  # the next three requests, in this order
    ChatClient(server.url, "any").complete(...)
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Status:
    """A refusal with a status, a reason in OpenAI's form, and perhaps the header Retry-After."""

    code: int
    message: str = "as the test wants it"
    retry_after: str | None = None


@dataclass(frozen=True)
class Cut:
    """The connection ends after so many pieces of the answer (a whole answer: in the middle of its JSON)."""

    pieces: int = 1
    politely: bool = False
    """The stream ends as one that is complete does, without its end having been said."""


@dataclass(frozen=True)
class Slow:
    """Nothing is sent for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Raw:
    """A body instead of an answer; in a stream an event."""

    body: str


MALFORMED = Raw('{"choices": [{"mess')
NO_CHOICE = Raw('{"id": "x", "choices": []}')
ERROR_INSIDE = Raw('{"error": {"message": "out of memory"}}')

Failure = Status | Cut | Slow | Raw


@dataclass
class ChatServer:
    """The server, from entering its `with` on.

    Args:
        answer: the conversation -> the answer's text. The default repeats what was said last.
        usage: whether tokens (here: words) are counted in the reply.
        refused: parameters that the model refuses, as OpenAI's reasoning models do.
    """

    answer: Callable[[Messages], str] = lambda messages: messages[-1]["content"]
    usage: bool = True
    refused: tuple[str, ...] = ()
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The bodies of all requests, failed ones too."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """Their headers, by names in small letters."""
    times: list[float] = field(default_factory=list)
    """When they came, `time.monotonic()`."""
    url: str = ""

    def __post_init__(self) -> None:
        self._failures: deque[Failure] = deque()
        self._lock = threading.Lock()

    def fail(self, *failures: Failure) -> None:
        """Let the next requests fail, one each."""
        self._failures.extend(failures)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def came(self, body: dict[str, Any], headers: dict[str, str]) -> Failure | None:
        """Note a request; how it fails, if it does."""
        with self._lock:
            self.requests.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            return self._failures.popleft() if self._failures else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is nothing to print."""


def _handler(owner: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            failure = owner.came(body, {name.lower(): value for name, value in self.headers.items()})
            unknown = [name for name in owner.refused if name in body]
            if self.path != "/v1/chat/completions":
                failure = Status(404, f"no {self.path} here")
            elif unknown and failure is None:
                failure = Status(400, f"Unsupported parameter: {unknown[0]!r}")
            if isinstance(failure, Slow):
                time.sleep(failure.seconds)
            if isinstance(failure, Status):
                self.refuse(failure)
            elif body.get("stream"):
                self.stream(body, failure)
            else:
                self.whole(body, failure)

        def refuse(self, failure: Status) -> None:
            more = {"retry-after": failure.retry_after} if failure.retry_after is not None else {}
            self.reply(failure.code, json.dumps({"error": {"message": failure.message}}).encode(), more)

        def whole(self, body: dict[str, Any], failure: Failure | None) -> None:
            if isinstance(failure, Raw):
                self.reply(200, failure.body.encode())
                return
            text = owner.answer(body["messages"])
            message = {"role": "assistant", "content": text}
            reply: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            if owner.usage:
                reply["usage"] = usage(body, text)
            data = json.dumps(reply).encode()
            if isinstance(failure, Cut):
                self.head(200, {"content-length": str(len(data))})
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            self.reply(200, data)

        def stream(self, body: dict[str, Any], failure: Failure | None) -> None:
            self.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
            text = owner.answer(body["messages"])
            for place, piece in enumerate(pieces(text)):
                if isinstance(failure, Cut) and place == failure.pieces:
                    self.close_connection = True
                    if failure.politely:
                        self.wfile.write(b"0\r\n\r\n")
                    return
                if isinstance(failure, Raw) and place == 1:
                    self.event(failure.body)
                self.event(json.dumps({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}))
            self.event(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
            if owner.usage and "stream_options" in body:
                self.event(json.dumps({"choices": [], "usage": usage(body, text)}))
            self.event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

        def event(self, data: str) -> None:
            sent = f"data: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent))
            self.wfile.flush()

        def reply(self, code: int, data: bytes, more: dict[str, str] | None = None) -> None:
            headers = {"content-type": "application/json", "content-length": str(len(data)), **(more or {})}
            self.head(code, headers)
            self.wfile.write(data)

        def head(self, code: int, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


def pieces(text: str) -> list[str]:
    """A text as a stream cuts it: words with the space before them."""
    return [word if place == 0 else f" {word}" for place, word in enumerate(text.split(" "))]


def usage(body: dict[str, Any], text: str) -> dict[str, int]:
    """Tokens as this server counts them: words."""
    asked = sum(len(message["content"].split()) for message in body["messages"])
    return {"prompt_tokens": asked, "completion_tokens": len(text.split())}
