"""Adapters loaded, swapped and dropped over HTTP, and those that are refused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from acclimate.models.adapter import Adapter, load_adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from tests.models.adapted import TEXTS
from tests.serve.http.test_embeddings import refused, vectors
from tests.serve.http.world import World, adapter_of, served

KEY = "everything-" + "k" * 16
FILE = f'[keys.all]\nkey = "{KEY}"\nrights = ["read", "write", "admin"]\n'


@pytest.fixture(scope="module")
def root(world: World, base: Encoder) -> Path:
    """A folder with two adapters."""
    root = world.folder / "adapters"
    for seed in (5, 6):
        (root / f"a{seed}").mkdir(parents=True)
        save_adapter(root / f"a{seed}", adapter_of(base, seed), base.source)
    return root


@pytest.fixture(scope="module")
def admin(world: World, root: Path) -> Iterator[httpx.Client]:
    keys = world.folder / "admin.toml"
    keys.write_text(FILE)
    with served(world, world.farm, keys=str(keys), adapter_root=str(root)) as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        yield client


def encoded(base: Encoder, adapter: Adapter) -> np.ndarray:
    return base.with_adapter(adapter).encode(TEXTS, "query")


def test_an_adapter_is_loaded_swapped_and_dropped(admin: httpx.Client, base: Encoder, root: Path) -> None:
    adapters = {name: load_adapter(root / name, str(base.source.id)) for name in ("a5", "a6")}
    for name, adapter in adapters.items():
        loaded = admin.post("/v1/adapters", json={"name": "fresh", "path": name})
        assert loaded.status_code == 201 and loaded.json()["sha256"] == adapter.fingerprint
        reply = admin.post("/v1/embeddings", json={"input": TEXTS, "model": "fresh@query"})
        assert reply.headers["x-acclimate-sha256"] == adapter.fingerprint
        np.testing.assert_allclose(vectors(reply), encoded(base, adapter), atol=1e-5)
    listed = {row["name"]: row["sha256"] for row in admin.get("/v1/adapters").json()["adapters"]}
    assert set(listed) == {"farm", "fresh"} and listed["fresh"] == adapters["a6"].fingerprint
    wrong = {"name": "fresh", "path": "a5", "sha256": adapters["a6"].fingerprint}
    assert admin.post("/v1/adapters", json=wrong).status_code == 409
    assert admin.delete("/v1/adapters/fresh", params={"sha256": adapters["a5"].fingerprint}).status_code == 409
    assert admin.delete("/v1/adapters/fresh").status_code == 200
    refused(admin.post("/v1/embeddings", json={"input": "soil", "model": "fresh@query"}), 404, "model")
    assert admin.delete("/v1/adapters/fresh").status_code == 404
    assert admin.delete("/v1/adapters/base").status_code == 400


@pytest.mark.parametrize("swaps", [12, pytest.param(1000, marks=pytest.mark.long)])
def test_every_reply_is_what_the_hash_it_names_gives(
    admin: httpx.Client, base: Encoder, root: Path, swaps: int
) -> None:
    adapters = [load_adapter(root / name, str(base.source.id)) for name in ("a5", "a6")]
    wanted = {adapter.fingerprint: encoded(base, adapter) for adapter in adapters}
    admin.post("/v1/adapters", json={"name": "swapped", "path": "a5"})
    done = threading.Event()

    def swap() -> None:
        for number in range(swaps):
            admin.post("/v1/adapters", json={"name": "swapped", "path": ("a6", "a5")[number % 2]})
        done.set()

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen: set[str] = set()
    while not done.is_set() or len(seen) < 1:
        reply = admin.post("/v1/embeddings", json={"input": TEXTS, "model": "swapped@query"})
        named = reply.headers["x-acclimate-sha256"]
        seen.add(named)
        np.testing.assert_allclose(vectors(reply), wanted[named], atol=1e-5)
    swapping.join()
    assert seen <= set(wanted)


def hostile(root: Path, outside: Path, base: Encoder) -> dict[str, str]:
    """What should not be loaded -> its path; made beside the good ones."""
    paths = {"above": "../farm/adapter", "absolute": str(outside), "missing": "nothing", "a file": "plain"}
    (root / "plain").write_text("x")
    (root / "link").symlink_to(outside, target_is_directory=True)
    paths["link"] = "link"

    def changed(name: str) -> Path:
        folder = root / name.replace(" ", "-")
        shutil.copytree(root / "a5", folder)
        paths[name] = folder.name
        return folder / "adapter_model.safetensors"

    weights = changed("pickle")
    weights.unlink()
    torch.save({"x": torch.ones(1)}, weights.with_suffix(".bin"))
    for name in ("not finite", "wrong shape", "cut off", "no tensors"):
        weights = changed(name)
        tensors = load_file(weights)
        first = next(iter(tensors))
        if name == "not finite":
            tensors[first][0, 0] = float("nan")
        elif name == "wrong shape":
            tensors[first] = tensors[first][:, :-1].contiguous()
        elif name == "no tensors":
            tensors = {}
        save_file(tensors, weights)
        if name == "cut off":
            weights.write_bytes(weights.read_bytes()[:-10])
    config = changed("broken json").parent / "adapter_config.json"
    config.write_text("{")
    facts = changed("another base").parent / "acclimate.json"
    facts.write_text(facts.read_text().replace(base.source.sha256, "0" * 64))
    return paths


def test_hostile_adapters_are_refused_and_nothing_is_loaded(
    admin: httpx.Client, world: World, root: Path, base: Encoder
) -> None:
    before = admin.get("/v1/adapters").json()
    for name, path in hostile(root, world.farm / "adapter", base).items():
        reply = admin.post("/v1/adapters", json={"name": "hostile", "path": path})
        assert 400 <= reply.status_code < 500, (name, reply.text)
        assert reply.json()["error"]["message"], name
    for name in ("base", "a/b", "a@query", "..", "", "a" * 300):
        assert 400 <= admin.post("/v1/adapters", json={"name": name, "path": "a5"}).status_code < 500, name
    assert admin.get("/v1/adapters").json() == before
    assert admin.post("/v1/embeddings", json={"input": TEXTS, "model": "farm@query"}).status_code == 200


def test_without_a_root_nothing_is_loaded_and_a_replica_loads_nothing(world: World, root: Path) -> None:
    keys = world.folder / "admin-too.toml"
    keys.write_text(FILE)
    key, load = {"authorization": f"Bearer {KEY}"}, {"name": "x", "path": "a5"}
    with served(world, world.farm, keys=str(keys)) as client:
        refused(client.post("/v1/adapters", json=load, headers=key), 403, "path")
    with served(world, world.farm, keys=str(keys), adapter_root=str(root), read_only=True) as client:
        assert "--read-only" in refused(client.post("/v1/adapters", json=load, headers=key), 403, None)["message"]
        refused(client.delete("/v1/adapters/farm", headers=key), 403, None)
