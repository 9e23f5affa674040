"""A tiny base, runs with adapters on it and an index, a reranker; and the service over them, in a thread or process."""

from __future__ import annotations

import dataclasses
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from acclimate.configs import EndpointConfig, IndexConfig, RunConfig, ServeConfig, dump_config
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.retrieval.index.opening import open_index
from acclimate.retrieval.index.records import Document
from acclimate.serve.server import Process
from acclimate.types import Sides
from tests.models.adapted import WORDS, random_adapter, write_model
from tests.models.tiny import tiny_reranker

PATIENCE_S = 120.0
DOCUMENTS = [
    Document(f"d{number:02}", " ".join(WORDS[(number + step) % 12 + 2] for step in range(4)), {"year": 2000 + number})
    for number in range(30)
]


@dataclasses.dataclass(frozen=True)
class World:
    """Where everything is."""

    folder: Path
    base: Path
    farm: Path
    """A run whose adapter changes queries and documents, with an index of `DOCUMENTS`."""
    bank: Path
    """A run whose adapter changes queries only; no index."""
    reranker: Path

    def config(self, *, llm: str | None = None, **serve: Any) -> RunConfig:
        """Settings of a service over it, with a language model at an address."""
        settings = {"port": 0, "poll_s": 0.1, **serve}
        asked = EndpointConfig() if llm is None else EndpointConfig(llm=llm, llm_model="any")
        shared = {"device": "cpu", "dtype": "float32", "endpoint": asked}
        return RunConfig(model=str(self.base), serve=ServeConfig(**settings), **shared)


def make_world(folder: Path) -> World:
    """Write it."""
    base = write_model(folder / "base", "bert")
    encoder = Encoder.load(str(base), device="cpu", dtype="float32")
    reranker = tiny_reranker(folder / "reranker")
    world = World(folder, base, folder / "farm", folder / "bank", reranker)
    write_run(world.farm, encoder, adapter_of(encoder, seed=1))
    write_run(world.bank, encoder, adapter_of(encoder, seed=2, sides="query"))
    adapted = encoder.with_adapter(adapter_of(encoder, seed=1))
    index = open_index(world.farm / "index", adapted.space)
    index.upsert(DOCUMENTS, adapted.encode([one.text for one in DOCUMENTS], "document"))
    index.close()
    return world


def adapter_of(encoder: Encoder, seed: int, sides: Sides = "both") -> Adapter:
    """A random adapter, another for each seed."""
    adapter = random_adapter(encoder, sides=sides)
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: (A_rI + torch.randn(A_rI.shape, generator=generator) / 8, B_Or)
        for name, (A_rI, B_Or) in adapter.modules.items()
    }
    return dataclasses.replace(adapter, modules=moved)


def write_run(run: Path, encoder: Encoder, adapter: Adapter) -> None:
    """A run with nothing but an adapter and its settings."""
    (run / "adapter").mkdir(parents=True)
    save_adapter(run / "adapter", adapter, encoder.source)
    config = RunConfig(model=encoder.source.id, device="cpu", dtype="float32", index=IndexConfig())
    (run / "config.toml").write_text(dump_config(config))


def copy_run(run: Path, folder: Path) -> Path:
    """Copy a run whose index a service of this process may have open.

    Another process does it. When a process closes a file that it opened beside SQLite, all its locks on that file are
    gone: the next process that closes the index takes itself for the last one, and removes the log that is in use.
    """
    subprocess.run(["cp", "-a", str(run), str(folder)], check=True)
    return folder


@contextmanager
def served(world: World, *names: Path | str, reranker: Path | None = None, **serve: Any) -> Iterator[httpx.Client]:
    """A client of a service in a thread of this process, once it answers."""
    process = Process([str(name) for name in names], world.config(**serve), None if reranker is None else str(reranker))
    with running(process), httpx.Client(base_url=process.address, timeout=PATIENCE_S) as client:
        wait_until_ready(client)
        yield client


@contextmanager
def running(process: Process) -> Iterator[Process]:
    """A service in a thread of this process; what it fails with is raised when it is over."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            process.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield process
    finally:
        process.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def wait_until_ready(client: httpx.Client) -> None:
    """Ask until requests are answered."""
    end = time.monotonic() + PATIENCE_S
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < end, "not ready"
        time.sleep(0.02)
