"""A tiny base with adapters in folders, and an engine over them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.core.linears import linear_names
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.serve.adapter_files import LoadedAdapter
from acclimate.serve.engine import Engine
from acclimate.serve.registry import Registry
from acclimate.types import Role
from tests.models import adapted

T = TypeVar("T")


def make_adapter(base: Encoder, seed: int, *, rank: int = 3, size: float = 1.0, **use: Any) -> Adapter:
    """A random adapter on all linear layers; another seed moves vectors elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for name in linear_names(base.model):
        linear: Any = base.model.get_submodule(name)
        A_rI = torch.randn(rank, linear.in_features, generator=generator) * size / 6
        modules[name] = (A_rI, torch.randn(linear.out_features, rank, generator=generator) / 6)
    source = base.source
    used = dataclasses.replace(base.use, **use)
    return Adapter(source.id, source.sha256, rank, float(rank), modules, used, source.files.normalise)


@dataclass(frozen=True)
class World:
    """A base, and where its adapters' folders are."""

    base: Encoder
    root: Path

    @classmethod
    def make(cls, folder: Path) -> World:
        """Write a tiny BERT whose queries have a prompt."""
        root = folder / "adapters"
        root.mkdir()
        return cls(Encoder.load(str(adapted.write_model(folder / "base", "bert")), device="cpu", dtype="float32"), root)

    def save(self, name: str, adapter: Adapter) -> Adapter:
        """Write an adapter's folder below the root."""
        (self.root / name).mkdir()
        save_adapter(self.root / name, adapter, self.base.source)
        return adapter

    def registry(self, **adapters: Adapter) -> Registry:
        """Serve adapters from the start."""
        return Registry(
            self.base, {name: LoadedAdapter(adapter, False) for name, adapter in adapters.items()}, root=self.root
        )

    def alone(self, adapter: Adapter | None, text: str, role: Role = "document") -> NDArray[np.float32]:
        """The reference: one text through an encoder with one adapter."""
        encoder = self.base if adapter is None else self.base.with_adapter(adapter)
        return encoder.encode([text], role)[0]


def running(engine: Engine, use: Callable[[Engine], Awaitable[T]]) -> T:
    """Start an engine, use it, and stop it."""

    async def main() -> T:
        engine.start()
        try:
            await until(lambda: engine.ready)
            return await use(engine)
        finally:
            await engine.drain(5.0)

    return asyncio.run(main())


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has to come."""
    async with asyncio.timeout(60.0):
        while not true():
            await asyncio.sleep(0.002)
