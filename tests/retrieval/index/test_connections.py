"""Urls of servers, credentials, servers that are not there, refuse, or are slow to come back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from acclimate.errors import AcclimateError, StorageError, UsageError
from acclimate.retrieval.index.postgres import connection as postgres_connection
from acclimate.retrieval.index.postgres.connection import PostgresPlace, parse_postgres_url
from acclimate.retrieval.index.qdrant import connection as qdrant_connection
from acclimate.retrieval.index.qdrant.connection import QdrantPlace, parse_qdrant_url, patiently


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("qdrant://db/farm", QdrantPlace("db", 6333, False, "farm")),
        ("qdrants://db.example:443/farm-2.x", QdrantPlace("db.example", 443, True, "farm-2.x")),
        ("qdrant://[::1]:7000/farm/", QdrantPlace("::1", 7000, False, "farm")),
    ],
)
def test_a_qdrant_url(url: str, place: QdrantPlace) -> None:
    assert parse_qdrant_url(url) == place


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("qdrant://host", "not the place of a Qdrant collection"),
        ("qdrant:///farm", "not the place of a Qdrant collection"),
        ("qdrant://host:x/farm", "cannot be read"),
        ("qdrant://host/a/b", "does not end in the name of a collection"),
        ("qdrant://host/farm?key=1", "does not end in the name of a collection"),
        ("qdrant://me:secret@host/farm", "QDRANT_API_KEY"),
        ("qdrant://secret@host/farm", "QDRANT_API_KEY"),
    ],
)
def test_a_url_that_qdrant_cannot_have(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        parse_qdrant_url(url)
    assert "secret" not in str(refused.value)


def test_a_postgres_url() -> None:
    assert parse_postgres_url(
        "postgresql://me@db:5433/shop?table=Texte&schema=search&sslmode=require"
    ) == PostgresPlace("postgresql://me@db:5433/shop?sslmode=require", "search", "Texte")
    assert parse_postgres_url("postgres://db/shop").table == "acclimate"
    assert str(parse_postgres_url("postgresql://me@db:5433/shop")) == "postgresql://db/shop table public.acclimate"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:secret@db/shop", "PGPASSWORD"),
        ("postgresql://db/shop?password=secret", "PGPASSWORD"),
        ("postgresql://db/shop?table=", "table=''"),
        ("postgresql://db/shop?table=" + "t" * 41, "1 to 40 bytes"),
        ("postgresql://db/shop?table=a%00b", "1 to 40 bytes"),
        ("mysql://db/shop", "mysql://"),
    ],
)
def test_a_url_that_postgres_cannot_have(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        parse_postgres_url(url)
    assert "secret" not in str(refused.value)


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant_connection, "FIRST_WAIT_S", 0.0)
    waited: list[float] = []
    monkeypatch.setattr(qdrant_connection.time, "sleep", waited.append)
    with pytest.raises(StorageError, match="did not answer 6 times") as qdrant:
        qdrant_connection.connect(parse_qdrant_url("qdrant://127.0.0.1:1/farm"))
    with pytest.raises(StorageError, match="does not answer") as postgres:
        postgres_connection.connect(parse_postgres_url("postgresql://nobody@127.0.0.1:1/shop"))
    assert len(waited) == 5
    assert waited == sorted(waited)
    for error in (qdrant, postgres):
        assert one_line(error.value)
        assert "start the command again" in str(error.value)


def one_line(error: AcclimateError) -> bool:
    return "\n" not in str(error) and len(str(error)) < 600


@contextmanager
def answering(*statuses: int, version: str = "1.17.0") -> Iterator[tuple[QdrantPlace, list[str]]]:
    """A server that gives these statuses in a row, and 200 ever after; and the API keys that it was shown."""
    left, keys = list(statuses), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("api-key") or "")
            status = left.pop(0) if left else 200
            body = json.dumps({"title": "qdrant", "version": version} if status == 200 else {"status": "no"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield QdrantPlace("127.0.0.1", server.server_port, False, "farm"), keys
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_failure_that_passes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant_connection.time, "sleep", lambda _: None)
    monkeypatch.setenv("QDRANT_API_KEY", "from-the-environment")
    with answering(503, 429, 502) as (place, keys), pytest.warns(UserWarning, match="insecure"):
        qdrant_connection.connect(place).close()
    assert keys == ["from-the-environment"] * 4


@pytest.mark.parametrize(("status", "message"), [(401, "QDRANT_API_KEY"), (400, "refuses the request with status 400")])
def test_a_refusal_is_final(status: int, message: str) -> None:
    with answering(status) as (place, keys), pytest.raises(StorageError, match=message) as refused:
        qdrant_connection.connect(place)
    assert len(keys) == 1
    assert one_line(refused.value)


def test_an_old_server() -> None:
    with answering(version="1.9.2") as (place, _), pytest.raises(StorageError, match=r"Qdrant 1\.9\.2.*1\.16 or newer"):
        qdrant_connection.connect(place)


def test_our_own_errors_are_not_tried_again() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise UsageError("no")

    with pytest.raises(UsageError):
        patiently(QdrantPlace("h", 1, False, "c"), call)
    assert calls == [1]
