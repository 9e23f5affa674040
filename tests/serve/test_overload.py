"""Ten times as much comes as can be computed: what is accepted is answered, the rest is refused, and nothing grows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from acclimate.models.adapter_set import AdapterSet, Choice
from acclimate.models.tokens import Tokens
from acclimate.serve.engine import Engine
from acclimate.serve.errors import ServiceError
from acclimate.serve.scheduler import Limits
from tests.serve.world import World, make_adapter, running

RATE = 2000.0
"""Tokens per second of the machine: what it computes takes so long, whatever else runs on the real one."""
TEXTS = ["wheat grows in the field", "rain", "the sun in the sun", "seed leaf water rice wheat"] * 3
TIMES = 10
DEADLINE_S = 3.0


def resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the system does not say how much memory a process has")
    return int(statm.read_text().split()[1]) * 4096


@pytest.mark.parametrize("seconds", [4.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_overload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    world = World.make(tmp_path)
    adapters = {f"a{seed}": make_adapter(world.base, seed) for seed in range(4)}
    registry = world.registry(**adapters)
    expected = {name: world.base.with_adapter(it).encode(TEXTS) for name, it in adapters.items()}
    tokens = int(world.base.tokenise(TEXTS[:4]).lengths.sum())
    inner = AdapterSet.encode_tokens
    outcomes: Counter[str] = Counter()
    most = 0

    def slowly(self: AdapterSet, batch: Tokens, choices: Sequence[Choice], dim: int) -> NDArray[np.float32]:
        time.sleep(len(batch.flat) / RATE)
        return inner(self, batch, choices, dim)

    async def ask(engine: Engine, number: int) -> None:
        name = f"a{number % 4}"
        try:
            found = await engine.embed(TEXTS[:4], pinned=registry.pin(name), role="document", deadline_s=DEADLINE_S)
        except ServiceError as error:
            outcomes[str(error.status)] += 1
            assert error.status != 429 or error.retry_after_s is not None
            return
        assert np.abs(found.vectors - expected[name][:4]).max() < 1e-5
        outcomes["answered"] += 1

    async def use(engine: Engine) -> None:
        nonlocal most
        before = resident_bytes()
        pause_s = tokens / (TIMES * RATE)
        loop = asyncio.get_running_loop()
        started, number = loop.time(), 0
        async with asyncio.TaskGroup() as group:
            while loop.time() - started < seconds:
                while number * pause_s <= loop.time() - started:
                    group.create_task(ask(engine, number))
                    number += 1
                most = max(most, engine.queue().tokens)
                await asyncio.sleep(pause_s)
        assert resident_bytes() < 1.1 * before
        assert engine.queue().rows == 0
        refused = outcomes["429"]
        await ask(engine, 0)  # recovered: the next one is let in at once
        assert outcomes["429"] == refused and engine.ready

    monkeypatch.setattr(AdapterSet, "encode_tokens", slowly)
    running(Engine(registry, limits=Limits(batch_tokens=200)), use)
    assert set(outcomes) == {"answered", "429"}, outcomes
    assert most <= DEADLINE_S * RATE
    assert outcomes["429"] > outcomes["answered"] > 0
