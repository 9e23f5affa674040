"""docs/serving.md is true: its blocks run, from top to bottom, against a service, with the clients that they name."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.serve.access import Keys
from tests.chat_server import ChatServer
from tests.serve.http.world import World, adapter_of, make_world, served

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
ADDRESS = "http://127.0.0.1:8000"
KEY = "everything-" + "k" * 16


def blocks(language: str) -> list[str]:
    return [code for found, code in BLOCKS if found == language and "# not run" not in code]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The page's documents are written here: another service may write the shared index, and one writes at a time."""
    return make_world(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="module")
def page(own: World) -> Iterator[httpx.Client]:
    """Of the service that the page is about: one run, a reranker, and a language model."""
    says = ChatServer(lambda _: "In October [1].")
    with says as llm, served(own, own.farm, reranker=own.reranker, feedback=True, llm=llm.url) as client:
        yield client


def commands(block: str) -> list[str]:
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def there(code: str, client: httpx.Client) -> str:
    """The code, with the address of the service that runs."""
    return code.replace(ADDRESS, str(client.base_url).rstrip("/"))


def run_curl(block: str, client: httpx.Client, env: dict[str, str]) -> None:
    """Each command of a block; all have to succeed and to print JSON without an error."""
    for command in commands(block):
        assert command.startswith("curl -s ")
        code = command.replace(ADDRESS, str(client.base_url).rstrip("/")).replace(
            "curl -s", "curl -sS --fail-with-body"
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=env, timeout=120)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert "error" not in json.loads(done.stdout)


@pytest.mark.parametrize("block", blocks("bash"), ids=lambda block: commands(block)[0][:70])
def test_the_commands_run(page: httpx.Client, own: World, block: str) -> None:
    env = {"PATH": os.environ["PATH"], "KEY": KEY, "no_proxy": "127.0.0.1"}
    if "$KEY" not in block:
        run_curl(block, page, env)
        return
    root, keys = own.folder / "for the page", own.folder / "page.toml"
    base = Encoder.load(str(own.base), device="cpu", dtype="float32")
    (root / "a5").mkdir(parents=True)
    save_adapter(root / "a5", adapter_of(base, 5), base.source)
    keys.write_text(f'[keys.all]\nkey = "{KEY}"\nrights = ["read", "admin"]\n')
    with served(own, own.farm, keys=str(keys), adapter_root=str(root)) as client:
        run_curl(block, client, env)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0])
def test_the_clients_run(page: httpx.Client, block: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in re.findall(r"^(?:from|import) (\w+)", block, re.M):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is a package of [dev]")
    exec(
        compile(block.replace(ADDRESS, str(page.base_url).rstrip("/")), "docs/serving.md", "exec"), {"__name__": "docs"}
    )
    assert capsys.readouterr().out.strip()


def test_every_route_is_on_the_page(page: httpx.Client) -> None:
    for path, operations in page.get("/openapi.json").json()["paths"].items():
        shown = path.replace("/{id}", "/rust").replace("/v1/adapters/{name}", "/v1/adapters/fresh")
        assert shown.replace("/v1/models/{name}", "/v1/models") in PAGE, path
        for method in set(operations) - {"get", "post"}:
            assert f"-X {method.upper()}" in PAGE, (method, path)


def test_the_file_of_keys_and_the_error_can_be_read(tmp_path: Path, page: httpx.Client) -> None:
    (keys,) = blocks("toml")
    (tmp_path / "keys.toml").write_text(keys)
    assert Keys(tmp_path / "keys.toml").path and len(tomllib.loads(keys)["keys"]) == 3
    (error,) = blocks("json")
    body = {"input": "soil", "model": "farm@query", "dimensions": 8}
    assert set(page.post("/v1/embeddings", json=body).json()["error"]) == set(json.loads(error)["error"])
