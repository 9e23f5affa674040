"""The process: it answers while it loads, follows what others write, and stops in good order."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from acclimate.cli.main import main
from acclimate.errors import MissingExtraError, UsageError
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.retrieval.index.opening import open_index
from acclimate.retrieval.index.records import Document
from acclimate.runs.resolve import load
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.versions import publish
from acclimate.serve.server import Process
from tests.models.adapted import WORDS
from tests.serve.http.test_embeddings import refused, vectors
from tests.serve.http.test_limits import until
from tests.serve.http.world import PATIENCE_S, World, adapter_of, make_world, running, served, wait_until_ready


@pytest.fixture
def own(tmp_path: Path) -> World:
    """A world that the test may change."""
    return make_world(tmp_path)


class Service:
    """The command `acclimate serve` in a process of its own."""

    def __init__(self, world: World, *arguments: str, poll_s: float = 0.1) -> None:
        command = [
            sys.executable,
            "-m",
            "acclimate",
            "serve",
            str(world.farm),
            "--port",
            "0",
            "--model",
            str(world.base),
        ]
        quick = ["--device", "cpu", "--dtype", "float32", "--poll-s", str(poll_s), *arguments]
        self.lines: list[str] = []
        self.process = subprocess.Popen([*command, *quick], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        found = None
        while found is None:
            line = self.process.stderr.readline()
            self.lines.append(line)
            assert line, "".join(self.lines)
            found = re.search(r"http://\S+:\d+", line)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.client = httpx.Client(base_url=found[0], timeout=PATIENCE_S)

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines += list(self.process.stderr)

    def log(self) -> list[dict[str, Any]]:
        """What it has said, when it has ended."""
        self.reader.join(PATIENCE_S)
        return [json.loads(line) for line in self.lines if line.startswith("{")]


@contextmanager
def started(world: World, *arguments: str, poll_s: float = 0.1) -> Iterator[Service]:
    service = Service(world, *arguments, poll_s=poll_s)
    try:
        yield service
    finally:
        service.client.close()
        service.process.kill()
        service.process.wait(PATIENCE_S)
        service.reader.join(PATIENCE_S)


def test_the_command_answers_while_it_loads_and_stops_when_it_is_told(world: World, tmp_path: Path) -> None:
    keys, form = tmp_path / "keys.toml", '[keys.app]\nkey = "{}"\nrights = ["read"]\n'
    old, new = "old-" + "k" * 16, "new-" + "k" * 16
    keys.write_text(form.format(old))
    with started(world, "--keys", str(keys), poll_s=600) as service:
        client = service.client
        client.headers["x-api-key"] = old
        assert client.get("/livez").json() == {"status": "alive"}
        for reply in (client.get("/readyz"), client.get("/v1/models"), client.post("/v1/search", json={})):
            error = refused(reply, 503, None)
            assert "being loaded" in error["message"] and int(reply.headers["retry-after"]) >= 1
        wait_until_ready(client)
        body = {"input": "wheat grows", "model": "farm@query"}
        assert client.post("/v1/embeddings", json=body, headers={"x-request-id": "mine"}).status_code == 200
        until(lambda: 'route="/v1/embeddings",status="200"' in client.get("/metrics").text)
        keys.write_text(form.format(new))
        assert client.get("/v1/models").status_code == 200
        service.process.send_signal(signal.SIGHUP)
        until(lambda: client.get("/v1/models", headers={"x-api-key": new}).status_code == 200)
        refused(client.get("/v1/models"), 401, None)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE_S) == 0
        log = service.log()
        ready = next(line for line in log if line["event"] == "ready")
        assert set(ready["models"]) == {"base", "farm"}
        (request,) = [line for line in log if line.get("request_id") == "mine"]
        assert (request["path"], request["status"], request["key"]) == ("/v1/embeddings", 200, "app")
        assert not any("wheat" in line for line in service.lines)


@pytest.mark.slow
def test_what_was_acknowledged_is_there_after_a_kill(own: World) -> None:
    acknowledged: list[str] = []

    def write(client: httpx.Client, writer: int) -> None:
        for number in range(10**6):
            name = f"w{writer}-{number}"
            put = {"documents": [{"id": name, "text": "soil rain field", "metadata": {"number": number}}]}
            try:
                if client.put("/v1/documents", json=put).status_code != 200:
                    return
            except httpx.HTTPError:
                return
            acknowledged.append(name)

    with started(own) as service:
        wait_until_ready(service.client)
        writers = [threading.Thread(target=write, args=(service.client, number)) for number in range(3)]
        for writer in writers:
            writer.start()
        until(lambda: len(acknowledged) >= 60)
        service.process.send_signal(signal.SIGKILL)
        for writer in writers:
            writer.join()
    with started(own) as service:
        wait_until_ready(service.client)
        for name in acknowledged:
            assert service.client.get(f"/v1/documents/{name}").json()["id"] == name
        hits = service.client.post("/v1/search", json={"query": "soil rain field", "top_k": 10_000}).json()["hits"]
        assert {hit["id"] for hit in hits} >= set(acknowledged)


@pytest.mark.slow
def test_a_replica_in_another_process_finds_what_the_writer_acknowledged(own: World) -> None:
    with served(own, own.farm) as writer, started(own, "--read-only") as replica:
        wait_until_ready(replica.client)
        for number in range(20):
            text = f"wheat rain {'seed ' * number}"
            put = {"documents": [{"id": f"r{number}", "text": text}]}
            assert writer.put("/v1/documents", json=put).status_code == 200
            found = replica.client.post("/v1/search", json={"query": text, "top_k": 50}).json()["hits"]
            assert f"r{number}" in {hit["id"] for hit in found}
        refused(replica.client.put("/v1/documents", json=put), 403, None)


def test_a_replica_reads_and_a_second_writer_is_told(own: World) -> None:
    put = {"documents": [{"id": "new", "text": "soil rain"}]}
    with served(own, own.farm) as writer, served(own, own.farm, read_only=True) as replica:
        assert writer.put("/v1/documents", json=put).status_code == 200
        assert replica.get("/v1/documents/new").json()["text"] == "soil rain"
        until(lambda: 'acclimate_index_epoch{index="farm"} 31.0' in replica.get("/metrics").text)
        for reply in (
            replica.put("/v1/documents", json=put),
            replica.request("DELETE", "/v1/documents", json={"ids": ["new"]}),
        ):
            assert "--read-only" in refused(reply, 403, None)["message"]
        with served(own, own.farm) as second:
            other = {"documents": [{"id": "other", "text": "soil rain"}]}
            error = refused(second.put("/v1/documents", json=other), 409, None)
            assert "--read-only" in error["fix"]
            assert second.get("/v1/documents/new").status_code == 200


def test_a_new_version_of_a_runs_adapter_is_followed(own: World, base: Encoder) -> None:
    fresh = adapter_of(base, seed=9)
    (own.folder / "made").mkdir()
    save_adapter(own.folder / "made", fresh, base.source)
    body = {"input": "wheat grows", "model": "farm@query"}
    with served(own, own.farm, read_only=True) as client:
        before = client.post("/v1/embeddings", json=body)
        publish(own.folder / "made", RunFolder(own.farm).adapter)
        until(lambda: client.post("/v1/embeddings", json=body).headers["x-acclimate-sha256"] == fresh.fingerprint)
        after = client.post("/v1/embeddings", json=body)
        np.testing.assert_allclose(vectors(after), base.with_adapter(fresh).encode(["wheat grows"], "query"), atol=1e-5)
        assert before.headers["x-acclimate-sha256"] != fresh.fingerprint
        error = refused(client.post("/v1/search", json={"query": "wheat"}), 409, "index")
        assert "--reencode" in error["fix"]
        assert client.post("/v1/search", json={"query": "wheat", "mode": "lexical"}).status_code == 200


def test_a_run_without_an_index_gets_one_of_its_documents_space(own: World, base: Encoder) -> None:
    put = {"documents": [{"id": "first", "text": "wheat grows"}, {"id": "second", "text": "soil"}]}
    with served(own, own.bank) as client:
        assert client.put("/v1/documents", json=put).json()["encoded"] == 2
        assert client.post("/v1/search", json={"query": "soil", "mode": "lexical"}).json()["hits"][0]["id"] == "second"
    with closing(open_index(own.bank / "index")) as index:
        assert index.space == base.space  # its adapter is for queries only
        vector = index.get(["first"])["first"].vector
    np.testing.assert_allclose(vector, base.encode(["wheat grows"], "document")[0], atol=2e-3)


def test_an_index_that_is_replaced_is_opened_anew(own: World) -> None:
    farm = load(own.farm, base=str(own.base), device="cpu", dtype="float32")
    with served(own, own.farm) as client:
        assert client.get("/v1/documents").json()["count"] == 30
        other = open_index(own.folder / "other", farm.space)
        other.upsert([Document("only", "soil rain")], farm.encode(["soil rain"], "document"))
        other.close()
        (own.farm / "index").rename(own.folder / "old")
        (own.folder / "other").rename(own.farm / "index")
        assert client.get("/v1/documents").json()["count"] == 1
        assert client.post("/v1/search", json={"query": "soil"}).json()["hits"][0]["id"] == "only"
        put = {"documents": [{"id": "second", "text": "soil rain"}]}
        assert client.put("/v1/documents", json=put).status_code == 200
    with closing(open_index(own.farm / "index")) as index:
        assert index.count() == 2


def test_a_stop_lets_requests_under_way_finish_and_refuses_others(world: World) -> None:
    process = Process([str(world.farm)], world.config())
    replies: list[httpx.Response] = []
    texts = [f"{first} the {second} in the {third}" for first in WORDS for second in WORDS for third in WORDS]
    body = {"input": texts[:2000], "model": "farm@query"}
    with running(process), httpx.Client(base_url=process.address, timeout=PATIENCE_S) as client:
        wait_until_ready(client)
        call = threading.Thread(target=lambda: replies.append(client.post("/v1/embeddings", json=body)))
        call.start()
        until(lambda: "acclimate_requests_in_flight 2.0" in client.get("/metrics").text)
        process.stop()
        call.join()
    assert [reply.status_code for reply in replies] == [200]


def test_what_cannot_be_served_ends_the_process_with_a_reason(world: World, tmp_path: Path) -> None:
    process = Process([str(tmp_path / "nothing")], world.config())
    with pytest.raises(Exception, match="nothing"), running(process):
        until(lambda: process.site.failure is not None)


def test_a_fault_of_ours_has_the_shape_of_all_errors(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret")

    with served(world, world.farm) as client:
        monkeypatch.setattr("acclimate.serve.indexes.ServedIndex.get", broken)
        error = refused(client.get("/v1/documents/x"), 500, None)
        assert error["code"] == "internal_error" and "secret" not in str(error)
        assert client.get("/v1/models").status_code == 200


@pytest.mark.long
def test_clients_that_hang_up_take_no_memory(world: World) -> None:
    body = json.dumps({"input": ["the sun in the field"] * 40, "model": "farm@query"}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"content-length: %d\r\n\r\n" % len(body)
    parts = [head[:30], head, head + body[:50], head + body]

    def hang_up(client: httpx.Client, times: int) -> None:
        for number in range(times):
            with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
                connection.sendall(parts[number % len(parts)])
        until(lambda: "acclimate_requests_in_flight 1.0" in client.get("/metrics").text)

    with started(world, "--idle-s", "0.5", "--cache-mb", "0") as service:
        wait_until_ready(service.client)
        hang_up(service.client, 1000)
        process = psutil.Process(service.process.pid)
        before, files = process.memory_info().rss, process.num_fds()
        hang_up(service.client, 4000)
        until(lambda: process.num_fds() <= files)
        assert process.memory_info().rss < 1.1 * before


@pytest.mark.slow
def test_traces_are_sent_where_the_environment_says(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: who sends traces is settled once for all of a process."""
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is a package of [telemetry]")
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with started(world) as service:
            wait_until_ready(service.client)
            service.client.post("/v1/embeddings", json={"input": "wheat grows", "model": "farm@query"})
            until(lambda: any(b"/v1/embeddings" in body for _, body in received))
        collector.shutdown()
    assert {path for path, _ in received} == {"/v1/traces"}
    assert not any(b"wheat" in body for _, body in received)


def test_several_workers_are_refused_and_why_is_said(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(world.farm), "--workers", "4"])
    assert ended.value.code == UsageError.exit_code
    assert "--read-only" in capsys.readouterr().err


def test_without_the_extra_one_line_says_what_to_install(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("acclimate.cli.commands.serve.NEEDED", ("fastapi", "not_installed_anywhere"))
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(world.farm)])
    said = capsys.readouterr().err
    assert ended.value.code == MissingExtraError.exit_code
    assert "pip install 'acclimate[serve]'" in said and said.count("\n") == 1


def test_an_address_that_is_taken_is_told(world: World) -> None:
    first = Process([str(world.farm)], world.config())
    port = int(first.address.rpartition(":")[2])
    with pytest.raises(UsageError, match="cannot be listened on"):
        Process([str(world.farm)], world.config(port=port))
    with pytest.raises(Exception), running(first):  # noqa: B017
        raise RuntimeError
