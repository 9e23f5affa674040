"""A language model behind an endpoint that speaks OpenAI's chat completions: whole answers, and streams.

Any such endpoint will do (vLLM, llama.cpp, Ollama, a provider's). What a busy endpoint refuses, and what breaks on the
way, is asked again after a wait; what cannot succeed is an error at once.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx

from acclimate.errors import AcclimateError, UsageError, first_line

API_KEY_VARIABLE = "ACCLIMATE_LLM_API_KEY"
"""The environment variable with the endpoint's key. A key is no setting: settings are written into folders."""

CONNECT_S = 10.0
"""Seconds in which a connection has to stand, where the time limit is not shorter anyway."""

FIRST_WAIT_S = 1.0
"""The wait before the first retry; each further one waits twice as long."""

LONGEST_WAIT_S = 120.0
"""The longest wait that an endpoint may ask for. Beyond it, whoever asked is told how long it would be."""

BUSY = frozenset({408, 409, 425, 429})
"""States of an endpoint, beside 5xx, in which the same request can succeed later."""

DROPPABLE = {"max_tokens": "max_completion_tokens", "temperature": None, "stream_options": None}
"""Parameters that some models refuse -> what is sent instead. OpenAI's reasoning models know no `max_tokens` and only
their own temperature; older servers know no `stream_options`."""

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""


class ChatError(AcclimateError):
    """An endpoint that cannot be reached, refuses, or answers what is no answer.

    Args:
        found: what happened, naming the endpoint.
        status: the HTTP status, where there was one.
        fix: what the user can do now.
    """

    exit_code = 4

    def __init__(self, found: str, *, status: int | None = None, fix: str = "") -> None:
        super().__init__(found, fix=fix)
        self.status = status


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. The numbers of tokens are the endpoint's own; 0 where it does not count them."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatClient:
    """Asks one model of one endpoint. May be used by several threads; they share the connections and the rate.

    Args:
        url: the endpoint's address, with or without `/chat/completions`, e.g. `http://localhost:8000/v1`.
        model: the model's name there.
        api_key: sent as a bearer token. If not given, it is the environment's `ACCLIMATE_LLM_API_KEY`, if that is set.
        timeout_s: seconds without a byte after which a request counts as failed.
        retries: how often a request that failed for a passing reason is made again.
        requests_per_minute: the rate that is not exceeded, retries included; no limit if not given.
        first_wait_s: seconds before the first retry; they double with each one.

    Raises:
        UsageError: the address is none.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        timeout_s: float = 60,
        retries: int = 3,
        requests_per_minute: float | None = None,
        *,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self.url = _address(url)
        self.model = model
        self.retries = retries
        self._first_wait_s = first_wait_s
        key = api_key or os.environ.get(API_KEY_VARIABLE)
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
        )
        self._timeout_s = timeout_s
        self._rate = _Rate(requests_per_minute)
        self._dropped: frozenset[str] = frozenset()

    @property
    def shown_url(self) -> str:
        """The address without a name, a password or a query: for messages and reports."""
        return str(self.url.copy_with(userinfo=b"", query=None))

    def complete(self, messages: Sequence[Message], max_tokens: int, temperature: float = 0.0) -> Completion:
        """Ask for one whole answer.

        Args:
            messages: the conversation so far.
            max_tokens: the longest answer.
            temperature: 0 for the likeliest answer.

        Raises:
            ChatError: after the retries, or at once where they cannot help.
        """
        with closing(self._asked(messages, max_tokens, temperature, stream=False)) as response:
            return self._completion(response)

    def stream(self, messages: Sequence[Message], max_tokens: int, temperature: float = 0.0) -> TextStream:
        """Ask for an answer piece by piece. The request is made here, so a refusal is raised here.

        Args:
            messages: the conversation so far.
            max_tokens: the longest answer.
            temperature: 0 for the likeliest answer.

        Raises:
            ChatError: as `complete` does; while the pieces are read, if the stream breaks: it is then not begun again.
        """
        return TextStream(self._asked(messages, max_tokens, temperature, stream=True), self.shown_url)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(
        self, messages: Sequence[Message], max_tokens: int, temperature: float, *, stream: bool
    ) -> httpx.Response:
        """The response to a request, with status 200: of a stream only its head, else all of it."""
        retry = 0
        while True:
            sent = self._dropped
            wait_s = self._first_wait_s * 2**retry
            status: int | None = None
            self._rate.wait()
            try:
                body = self._body(messages, max_tokens, temperature, stream)
                response = self._http.send(self._http.build_request("POST", self.url, json=body), stream=True)
                if not stream or response.status_code != 200:
                    response.read()
            except httpx.TimeoutException:
                failure = f"did not answer within {self._timeout_s:g} s"
            except httpx.TransportError as error:
                failure = f"cannot be reached ({first_line(error)})"
            else:
                if response.status_code == 200:
                    return response
                if self._does_without(response, sent):
                    continue
                wait_s, status = self._wait_after(response, wait_s), response.status_code
                failure = f"refused with status {status} ({_reason(response)})"
            retry += 1
            if retry > self.retries:
                times = f", {retry} times" if self.retries else ""
                raise ChatError(f"{self.shown_url} {failure}{times}", status=status, fix="Try again later.")
            time.sleep(wait_s)

    def _body(self, messages: Sequence[Message], max_tokens: int, temperature: float, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        for name in self._dropped & body.keys():
            value, other = body.pop(name), DROPPABLE[name]
            body |= {other: value} if other else {}
        return body

    def _does_without(self, response: httpx.Response, sent: frozenset[str]) -> bool:
        """Whether the model refuses a parameter that it can do without: it is not sent again."""
        if response.status_code not in (400, 422):
            return False
        said = response.text
        named = {name for name in DROPPABLE if name in said} - sent
        self._dropped |= named
        return bool(named)

    def _wait_after(self, response: httpx.Response, wait_s: float) -> float:
        """Seconds to wait before the same request; raises where waiting does not help."""
        status = response.status_code
        if status not in BUSY and status < 500:
            fix = ""
            if status in (401, 403):
                fix = f"Set the environment variable {API_KEY_VARIABLE} to a key that may use the model {self.model}."
            elif status == 404:
                fix = f"Check the address, and that it has the model {self.model}."
            said = f"{self.shown_url} refused with status {status} ({_reason(response)})"
            raise ChatError(said, status=status, fix=fix)
        asked_s = _retry_after_s(response)
        if asked_s is None:
            return min(wait_s, LONGEST_WAIT_S)
        if asked_s > LONGEST_WAIT_S:
            said = f"{self.shown_url} refused with status {status} ({_reason(response)}), for the next {asked_s:.0f} s"
            raise ChatError(said, status=status, fix="Start again then: what was done is kept.")
        return asked_s

    def _completion(self, response: httpx.Response) -> Completion:
        try:
            said = response.json()
            text = said["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise ChatError(
                f"{self.shown_url} answered with what is no chat completion: {response.text[:200]!r}",
                fix="Check that the address is one of an OpenAI-compatible endpoint.",
            ) from error
        return Completion(str(text or ""), *_tokens(said))


class TextStream(Iterator[str]):
    """The pieces of an answer as they arrive; afterwards also how many tokens it took.

    Close it (or read it to its end): an answer that nobody reads on is then no longer written.
    """

    def __init__(self, response: httpx.Response, url: str) -> None:
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._response = response
        self._url = url
        self._pieces = self._read()

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """End the request."""
        self._pieces.close()
        self._response.close()

    def _read(self) -> Generator[str, None, None]:
        with closing(self._response) as response:
            ended = False
            try:
                for line in response.iter_lines():
                    field, _, data = line.partition(":")
                    if field != "data":
                        continue
                    if data.strip() == "[DONE]":
                        return
                    piece, ends = self._piece(data)
                    ended |= ends
                    if piece:
                        yield piece
            except httpx.TransportError as error:
                raise ChatError(f"{self._url} broke off in the middle of an answer ({first_line(error)})") from error
            if not ended:
                raise ChatError(f"{self._url} broke off in the middle of an answer")

    def _piece(self, data: str) -> tuple[str, bool]:
        """The text of an event, and whether the answer ends with it."""
        try:
            event = json.loads(data)
            if event.get("error"):
                raise ChatError(f"{self._url} gave up in the middle of an answer: {_message(event)}")
            if event.get("usage"):
                self.prompt_tokens, self.completion_tokens = _tokens(event)
            choices = event["choices"]
            if not choices:
                return "", False
            return str(choices[0]["delta"].get("content") or ""), bool(choices[0].get("finish_reason"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ChatError(f"{self._url} sent what is no piece of a chat completion: {data[:200]!r}") from error


class _Rate:
    """Lets requests start at equal distances, whichever thread makes them."""

    def __init__(self, per_minute: float | None) -> None:
        self._distance_s = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may start."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._distance_s
        if start > now:
            time.sleep(start - now)


def _address(url: str) -> httpx.URL:
    """The address that requests go to."""
    found = None
    with suppress(httpx.InvalidURL):
        found = httpx.URL(url)
    if found is None or found.scheme not in ("http", "https") or not found.host:
        raise UsageError(f"{url!r} is no address of an endpoint", possible="like http://localhost:8000/v1")
    path = found.path.rstrip("/")
    return found if path.endswith("/chat/completions") else found.copy_with(path=f"{path}/chat/completions")


def _tokens(said: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of prompt and answer; 0 where they are not counted."""
    usage = said.get("usage") or {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    prompt, completion = (int(count) if isinstance(count, int) else 0 for count in counts or (0, 0))
    return prompt, completion


def _reason(response: httpx.Response) -> str:
    """What an endpoint says of its refusal, short."""
    with suppress(ValueError):
        return _message(response.json())
    return " ".join(response.text.split())[:200] or response.reason_phrase


def _message(said: Any) -> str:
    """The message in the usual places of an error's JSON, or all of it."""
    error = said.get("error", said.get("detail", said)) if isinstance(said, dict) else said
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:200]


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds that the endpoint asks to wait: the header gives them, or a date."""
    asked = response.headers.get("retry-after", "")
    with suppress(ValueError):
        seconds = float(asked)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    with suppress(ValueError, TypeError):
        until = parsedate_to_datetime(asked)
        now = datetime.now(UTC) if until.tzinfo else datetime.now(UTC).replace(tzinfo=None)
        return max(0.0, (until - now).total_seconds())
    return None
