"""Vectors over HTTP are those of the encoder by itself, whatever the form of the request."""

from __future__ import annotations

import base64
import threading
from typing import Any

import httpx
import numpy as np
import pytest

from acclimate.models.adapter import load_adapter
from acclimate.models.encoder import Encoder
from acclimate.runs.run_folder import RunFolder
from tests.models.adapted import TEXTS
from tests.serve.http.world import World, served


def vectors(reply: httpx.Response) -> np.ndarray:
    assert reply.status_code == 200, reply.text[:500]
    rows = reply.json()["data"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    decoded = [
        np.frombuffer(base64.b64decode(row["embedding"]), "<f4")
        if isinstance(row["embedding"], str)
        else row["embedding"]
        for row in rows
    ]
    return np.array(decoded, np.float32)


def refused(reply: httpx.Response, status: int, field: str | None) -> dict[str, Any]:
    assert reply.status_code == status, reply.text[:500]
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "code", "field", "param", "fix", "request_id"}
    assert error["field"] == error["param"] == field
    assert error["request_id"] == reply.headers["x-request-id"]
    return error


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize(
    ("model", "more", "role"),
    [
        ("farm@query", {}, "query"),
        ("farm@document", {}, "document"),
        ("farm", {"input_type": "search_query"}, "query"),
        ("farm", {"input_type": "passage"}, "document"),
        ("farm", {"prompt_name": "query"}, "query"),
        ("base:farm", {"input_type": "document"}, "document"),
    ],
)
def test_an_adapter_is_asked_in_all_forms(
    client: httpx.Client, farm: Encoder, model: str, more: dict[str, str], role: Any, encoding: str
) -> None:
    body = {"input": TEXTS, "model": model, "encoding_format": encoding, **more}
    reply = client.post("/v1/embeddings", json=body)
    np.testing.assert_allclose(vectors(reply), farm.encode(TEXTS, role), atol=1e-5)
    said = reply.json()
    assert said["model"] == model
    assert said["usage"]["prompt_tokens"] == said["usage"]["total_tokens"] == farm.tokenise(TEXTS, role).lengths.sum()


@pytest.mark.parametrize("name", ["base", "base@query"])
def test_the_base_is_asked_by_its_name(client: httpx.Client, base: Encoder, name: str) -> None:
    side = {} if "@" in name else {"input_type": "query"}
    reply = client.post("/v1/embeddings", json={"input": "wheat grows", "model": name, **side})
    np.testing.assert_allclose(vectors(reply), base.encode(["wheat grows"], "query"), atol=1e-5)
    assert reply.headers["x-acclimate-sha256"] == base.source.sha256


def test_a_reply_names_the_hash_and_the_space(client: httpx.Client, world: World, farm: Encoder) -> None:
    reply = client.post("/v1/embeddings", json={"input": "soil", "model": "farm@document"})
    adapter = load_adapter(RunFolder(world.farm).adapter)
    named = reply.json()["acclimate"]
    assert named["sha256"] == reply.headers["x-acclimate-sha256"] == adapter.fingerprint
    assert named["space"] == farm.space.digest


@pytest.mark.parametrize("name", ["nobody", "farm@side", "base:nobody", "", "Farm", "farm@query@query"])
def test_an_unknown_model_is_never_the_base(client: httpx.Client, name: str) -> None:
    reply = client.post("/v1/embeddings", json={"input": "soil", "model": name, "input_type": "query"})
    error = refused(reply, 404 if name else 422, "model")
    assert not name or (error["code"] == "model_not_found" and "farm" in error["message"])


def test_the_side_has_to_be_known_where_it_matters(client: httpx.Client) -> None:
    reply = client.post("/v1/embeddings", json={"input": "soil", "model": "farm"})
    message = refused(reply, 422, "input_type")["message"]
    assert "farm@query" in message and "prompt_name" in message


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"input_type": "document", "model": "farm@query"}, "input_type"),
        ({"input_type": "classification"}, "input_type"),
        ({"prompt_name": "nothing"}, "prompt_name"),
        ({"input_type": "query", "prompt_name": "document"}, "prompt_name"),
    ],
)
def test_a_side_that_is_unknown_or_said_twice_is_refused(
    client: httpx.Client, more: dict[str, str], field: str
) -> None:
    refused(client.post("/v1/embeddings", json={"input": "soil", "model": "farm", **more}), 422, field)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ([], 422),
        (None, 422),
        (7, 422),
        ([1, 2], 400),
        ([[1, 2], [3]], 400),
        (["a", 1], 422),
        ([[]], 422),
        ([None], 422),
    ],
)
def test_inputs_that_are_no_texts_are_refused(client: httpx.Client, value: Any, status: int) -> None:
    reply = client.post("/v1/embeddings", json={"input": value, "model": "farm@query"})
    error = refused(reply, status, "input")
    assert status != 400 or "check_embedding_ctx_length=False" in error["fix"]


def test_fewer_dimensions_are_for_matryoshka_models(client: httpx.Client) -> None:
    body = {"input": "soil", "model": "farm@query"}
    assert client.post("/v1/embeddings", json={**body, "dimensions": 32}).status_code == 200
    refused(client.post("/v1/embeddings", json={**body, "dimensions": 8}), 400, "dimensions")


def test_token_ids_and_a_default_side_where_the_service_has_them(world: World, farm: Encoder) -> None:
    ids = farm.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    with served(world, world.farm, accept_token_ids=True, default_input_type="query") as client:
        reply = client.post("/v1/embeddings", json={"input": [ids, ids[:1]], "model": "farm"})
    texts = [TEXTS[0], TEXTS[0].split()[0]]
    np.testing.assert_allclose(vectors(reply), farm.encode(texts, "query"), atol=1e-5)


def test_the_models_are_listed_with_what_clients_need(client: httpx.Client, farm: Encoder) -> None:
    rows = {row["id"]: row for row in client.get("/v1/models").json()["data"]}
    assert set(rows) == {name + side for name in ("base", "farm", "bank") for side in ("", "@query", "@document")}
    row = rows["farm@query"]
    assert row["parent"] == farm.source.id and rows["base"]["parent"] is None
    assert row["dimensions"] == 32 and row["prompts"]["query"] == {"": "find : "}
    assert row["space"]["digest"] == farm.space.digest
    assert row["input_type"] == "query" and row["needs_input_type"]
    assert rows["bank"]["sides"] == "query" and rows["bank"]["space"] == rows["base"]["space"]
    assert client.get("/v1/models/farm@query").json() == row
    refused(client.get("/v1/models/nobody"), 404, "model")


def test_tei_clients_get_lists(client: httpx.Client, farm: Encoder) -> None:
    reply = client.post("/embed", json={"inputs": TEXTS, "prompt_name": "query", "model": "farm", "truncate": True})
    np.testing.assert_allclose(np.array(reply.json()), farm.encode(TEXTS, "query"), atol=1e-5)
    assert reply.headers["x-acclimate-model"] == "farm"
    refused(client.post("/embed", json={"inputs": "soil"}), 422, "model")
    refused(client.post("/embed", json={"inputs": "soil", "model": "farm", "normalize": False}), 422, "normalize")
    assert client.get("/info").json()["max_input_length"] == 20


def test_callers_at_once_get_what_each_would_get_alone(client: httpx.Client, farm: Encoder, base: Encoder) -> None:
    wanted = {
        "farm@query": farm.encode(TEXTS, "query"),
        "farm@document": farm.encode(TEXTS, "document"),
        "base@query": base.encode(TEXTS, "query"),
    }
    wrong: list[str] = []

    def call(name: str) -> None:
        for _ in range(10):
            reply = client.post("/v1/embeddings", json={"input": TEXTS, "model": name})
            if not np.allclose(vectors(reply), wanted[name], atol=1e-5):
                wrong.append(name)

    threads = [threading.Thread(target=call, args=(name,)) for name in [*wanted, *wanted]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
