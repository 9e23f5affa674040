"""Who may do what: keys, rights, origins, host names."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import httpx
import pytest

from acclimate.configs import ServeConfig
from acclimate.errors import DataError, UsageError
from acclimate.serve.access import Keys, right_needed
from tests.serve.http.test_embeddings import refused
from tests.serve.http.world import PATIENCE_S, World, make_world, served

READER, WRITER, ADMIN = ("reader-" + "k" * 16, "writer-" + "k" * 16, "admin-" + "k" * 16)
FILE = f"""
[keys.app]
key = "{READER}"
rights = ["read"]

[keys.feeder]
sha256 = "{hashlib.sha256(WRITER.encode()).hexdigest()}"
rights = ["read", "write"]

[keys.operator]
key = "{ADMIN}"
rights = ["admin"]
"""


def key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Where documents are written: another service may write the shared index, and one writes at a time."""
    return make_world(tmp_path_factory.mktemp("access"))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(FILE)
    return path


def test_a_key_may_do_what_its_rights_say(own: World, keys: Path) -> None:
    put = {"documents": [{"id": "k", "text": "soil"}]}
    with served(own, own.farm, keys=str(keys)) as client:
        error = refused(client.get("/v1/models"), 401, None)
        assert error["code"] == "invalid_api_key" and "Bearer" in error["fix"]
        assert client.get("/v1/models").headers["www-authenticate"] == "Bearer"
        for wrong in (READER[:-1], READER + "k", "ключ".encode().hex()):
            refused(client.get("/v1/models", headers=key(wrong)), 401, None)
        assert client.get("/v1/models", headers=key(READER)).status_code == 200
        assert client.get("/v1/models", headers={"x-api-key": READER}).status_code == 200
        assert "feeder" not in refused(client.put("/v1/documents", json=put, headers=key(READER)), 403, None)["message"]
        assert client.put("/v1/documents", json=put, headers=key(WRITER)).status_code == 200
        refused(client.request("DELETE", "/v1/documents", json={"ids": ["k"]}, headers=key(READER)), 403, None)
        assert client.request("DELETE", "/v1/documents", json={"ids": ["k"]}, headers=key(WRITER)).status_code == 200
        refused(client.get("/v1/adapters", headers=key(WRITER)), 403, None)
        assert client.get("/v1/adapters", headers=key(ADMIN)).status_code == 200
        refused(client.get("/v1/models", headers=key(ADMIN)), 403, None)
        refused(client.get("/metrics"), 401, None)
        for path in ("/livez", "/readyz", "/openapi.json", "/docs"):
            assert client.get(path).status_code == 200


def test_a_file_that_changes_is_read_again_and_a_broken_one_leaves_the_keys_of_before(world: World, keys: Path) -> None:
    fresh = "fresh-" + "k" * 16
    with served(world, world.farm, keys=str(keys)) as client:

        def allowed(name: str) -> bool:
            return client.get("/v1/models", headers=key(name)).status_code == 200

        def failures() -> bool:
            page = client.get("/metrics", headers=key(READER)).text
            return 'acclimate_maintenance_failures_total{what="keys"}' in page

        keys.write_text("[keys")
        _until(failures)
        assert allowed(READER)
        keys.write_text(f'[keys.new]\nkey = "{fresh}"\nrights = ["read"]\n')
        _until(lambda: allowed(fresh))
        assert not allowed(READER)


def _until(holds: object) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_keys_adapters_are_not_changed(client: httpx.Client) -> None:
    message = refused(client.post("/v1/adapters", json={"name": "x", "path": "x"}), 403, None)["message"]
    assert "admin" in message and "no keys" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no keys"),
        ("[keys", "TOML"),
        ('[keys.a]\nkey = "short"\nrights = ["read"]', "5 characters"),
        ('[keys.a]\nsha256 = "xy"\nrights = ["read"]', "sha256"),
        (f'[keys.a]\nkey = "{READER}"', "[keys.a]"),
        (f'[keys.a]\nkey = "{READER}"\nrights = ["read"]\nmore = 1', "[keys.a]"),
        (f'[keys.a]\nkey = "{READER}"\nrights = ["all"]', "'all'"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        Keys(path)
    assert said in str(caught.value) and str(path) in str(caught.value)
    assert READER not in str(caught.value)


def test_what_changes_something_needs_the_right_to() -> None:
    assert right_needed("GET", "/livez") is None
    assert right_needed("POST", "/v1/search") == right_needed("GET", "/anything") == "read"
    assert right_needed("POST", "/v1/feedback") == "write"
    assert right_needed("PUT", "/v1/documents") == right_needed("DELETE", "/v1/documents") == "write"
    assert right_needed("GET", "/v1/adapters") == right_needed("DELETE", "/v1/adapters/x") == "admin"


def test_a_public_address_needs_keys_or_a_word() -> None:
    with pytest.raises(UsageError) as caught:
        ServeConfig(host="0.0.0.0")
    assert "--keys" in str(caught.value) and "--public" in str(caught.value)
    assert ServeConfig(host="0.0.0.0", public=True).host == "0.0.0.0"
    assert ServeConfig(host="0.0.0.0", keys="keys.toml").keys == "keys.toml"
    with pytest.raises(UsageError):
        ServeConfig(cors=("*",))


def test_a_name_that_leads_here_by_a_trick_is_refused(client: httpx.Client) -> None:
    assert client.get("/v1/models", headers={"host": "localhost:1"}).status_code == 200
    assert client.get("/v1/models", headers={"host": "[::1]:80"}).status_code == 200
    refused(client.get("/v1/models", headers={"host": "evil.example"}), 421, None)


def test_no_origin_is_allowed_but_those_that_are_named(client: httpx.Client, world: World) -> None:
    asked = {"origin": "https://intranet.example", "access-control-request-method": "POST"}
    assert client.options("/v1/search", headers=asked).status_code == 405
    with served(world, world.farm, cors=("https://intranet.example",)) as open_client:
        reply = open_client.options("/v1/search", headers=asked)
        assert reply.headers["access-control-allow-origin"] == "https://intranet.example"
        other = open_client.options("/v1/search", headers={**asked, "origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        page = open_client.get("/nothing", headers=asked)
        assert page.status_code == 404 and "access-control-allow-origin" in page.headers
