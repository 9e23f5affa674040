"""The registry: names, hashes, swaps, and folders that mean harm."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from acclimate.serve.adapter_files import LoadedAdapter
from acclimate.serve.engine import Engine
from acclimate.serve.errors import ServiceError
from acclimate.serve.registry import Registry, role_matters
from tests.models import adapted
from tests.serve.world import World, make_adapter, running


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World.make(tmp_path_factory.mktemp("registry"))
    for seed in (1, 2, 3):
        made.save(f"seed{seed}", make_adapter(made.base, seed))
    return made


def refused(status: int, call: Callable[[], Any]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        call()
    assert caught.value.status == status, str(caught.value)
    return caught.value


def test_names_lead_to_the_base_or_an_adapter_and_nothing_else(world: World) -> None:
    registry = world.registry(one=make_adapter(world.base, 1), two=make_adapter(world.base, 2))
    base_id = world.base.source.id
    for name in ("base", base_id):
        assert (registry.pin(name).weights, registry.pin(name).sha256) == (None, None)
    for name in ("one", "base:one", f"{base_id}:one"):
        assert registry.pin(name).name == "one"
        assert registry.pin(name).sha256 == make_adapter(world.base, 1).fingerprint
    for name in ("three", "base:three", "two:one", "ONE", "", "one ", "base:base:one"):
        assert "base, one, two" in str(refused(404, lambda name=name: registry.pin(name)))  # type: ignore[misc]
    assert [model.name for model in registry.models()] == ["base", "one", "two"]


def test_mixtures(world: World) -> None:
    short = make_adapter(world.base, 3, max_tokens=7)
    registry = world.registry(one=make_adapter(world.base, 1), two=make_adapter(world.base, 2), short=short)
    mixed, other = registry.pin({"one": 0.5, "two": 0.5}), registry.pin({"two": 0.5, "one": 0.5})
    assert mixed.name == "one=0.5+two=0.5" and mixed.sha256 == other.sha256
    assert mixed.sha256 != registry.pin({"one": 0.5, "two": 0.4}).sha256
    wrong: list[dict[str, float]] = [{}, {"one": float("nan")}, {"one": 1, "base": 1}, {"one": 1, "short": 1}]
    for weights in [*wrong, {"one": 1, "base:one": 1}, {f"a{n}": 1.0 for n in range(17)}]:
        refused(400, lambda weights=weights: registry.pin(weights))  # type: ignore[misc]
    refused(404, lambda: registry.pin({"one": 0.5, "none": 0.5}))


def test_what_is_said_of_a_model(world: World) -> None:
    adapter = dataclasses.replace(make_adapter(world.base, 1, dim=16), sides="query")
    registry = world.registry(one=adapter)
    base, one = registry.models()
    assert (base.dim, one.dim, base.sha256, one.sha256) == (32, 16, None, adapter.fingerprint)
    assert base.space == world.base.space and one.space == world.base.with_adapter(adapter).space
    both = make_adapter(world.base, 1)
    assert world.registry(one=both).models()[1].space == world.base.with_adapter(both).space
    assert base.needs_role and one.needs_role  # the base's queries have a prompt
    assert role_matters(base.prompts, "both") and not role_matters(adapted.Prompts(), "both")
    assert role_matters(adapted.Prompts(), "query")


def test_load_swap_and_drop(world: World) -> None:
    registry = world.registry()
    first = registry.load("one", "seed1")
    pinned = registry.pin("one")
    second = registry.load("one", str(world.root / "seed2"), sha256=make_adapter(world.base, 2).fingerprint)
    assert first.sha256 != second.sha256 == registry.pin("one").sha256
    assert pinned.sha256 == first.sha256 and "one" in pinned.adapters.adapters
    assert registry.bytes_used == LoadedAdapter(make_adapter(world.base, 2), False).bytes_as(torch.float32)
    shared = {parameter.data_ptr() for parameter in world.base.model.parameters()}
    assert shared <= {parameter.data_ptr() for parameter in pinned.adapters._model.parameters()}
    error = refused(409, lambda: registry.load("one", "seed1", sha256="0" * 64))
    assert first.sha256 in error.possible
    refused(409, lambda: registry.drop("one", sha256=first.sha256))
    assert registry.drop("one") == second
    refused(404, lambda: registry.pin("one"))
    refused(404, lambda: registry.drop("one"))
    refused(400, lambda: registry.drop("base"))
    for name in (
        "base",
        "auto",
        "mix",
        "fuse",
        world.base.source.id,
        "",
        "a b",
        "a:b",
        "a/b",
        "x" * 129,
        "a@query",
        "-a",
    ):
        refused(400, lambda name=name: registry.load(name, "seed1"))  # type: ignore[misc]
    assert [model.name for model in registry.models()] == ["base"]


def test_a_cap_on_memory(world: World) -> None:
    one = LoadedAdapter(make_adapter(world.base, 1), False)
    registry = Registry(world.base, root=world.root, max_bytes=2 * one.bytes_as(torch.float32))
    registry.load("a", "seed1")
    registry.load("b", "seed2")
    assert "of memory" in refused(409, lambda: registry.load("c", "seed3")).found
    registry.load("b", "seed3")  # in place of another one
    registry.drop("a")
    registry.load("c", "seed1")
    with pytest.raises(ServiceError, match="of memory"):
        Registry(world.base, {"one": one}, max_bytes=100)


def outside(world: World, folder: Path) -> str:  # noqa: ARG001
    return "../base"


def outside_by_a_link(world: World, folder: Path) -> str:
    elsewhere = world.root.parent / f"elsewhere-{folder.name}"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere, target_is_directory=True)
    return folder.name


def a_file_outside_by_a_link(world: World, folder: Path) -> str:
    elsewhere = world.root.parent / f"weights-{folder.name}"
    (folder / "adapter_model.safetensors").rename(elsewhere)
    (folder / "adapter_model.safetensors").symlink_to(elsewhere)
    return folder.name


def a_pickle(world: World, folder: Path) -> str:  # noqa: ARG001
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'echo harm'\ntR.")
    return folder.name


def a_pickle_by_another_name(world: World, folder: Path) -> str:  # noqa: ARG001
    (folder / "adapter_model.safetensors").write_bytes(b"cos\nsystem\n(S'echo harm'\ntR.")
    return folder.name


def a_pipe(world: World, folder: Path) -> str:  # noqa: ARG001
    (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(folder / "adapter_model.safetensors")
    return folder.name


def a_huge_file(world: World, folder: Path) -> str:  # noqa: ARG001
    with (folder / "adapter_model.safetensors").open("r+b") as stream:
        stream.truncate(1 << 40)  # sparse
    return folder.name


def a_huge_config(world: World, folder: Path) -> str:  # noqa: ARG001
    with (folder / "adapter_config.json").open("r+b") as stream:
        stream.truncate(1 << 30)
    return folder.name


def changed_weights(change: Callable[[str, torch.Tensor], torch.Tensor]) -> Callable[[World, Path], str]:
    def made(world: World, folder: Path) -> str:  # noqa: ARG001
        path = folder / "adapter_model.safetensors"
        tensors = {name: change(name, tensor) for name, tensor in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
        return folder.name

    return made


def changed_json(name: str, **values: Any) -> Callable[[World, Path], str]:
    def made(world: World, folder: Path) -> str:  # noqa: ARG001
        own = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(own | values))
        return folder.name

    return made


def of_a_base_by_name(world: World, folder: Path) -> str:
    (folder / "acclimate.json").unlink()
    return changed_json("adapter_config.json", base_model_name_or_path="org/other")(world, folder)


def deep(world: World, folder: Path) -> str:  # noqa: ARG001
    (folder / "acclimate.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    return folder.name


CONFIG, FACTS = "adapter_config.json", "acclimate.json"
HOSTILE: dict[str, tuple[int, Callable[[World, Path], str]]] = {
    "..": (403, outside),
    "an absolute path": (403, lambda world, _: str(world.root.parent / "base")),
    "nothing": (403, lambda *_: ""),
    "a NUL": (403, lambda *_: "a\0b"),
    "a long name": (403, lambda *_: "a" * 5000),
    "not there": (400, lambda *_: "nowhere"),
    "a link out of the root": (403, outside_by_a_link),
    "a file's link out of the root": (400, a_file_outside_by_a_link),
    "a pickle": (400, a_pickle),
    "a pickle by another name": (400, a_pickle_by_another_name),
    "a pipe": (400, a_pipe),
    "a huge file": (400, a_huge_file),
    "a huge config": (400, a_huge_config),
    "NaN": (400, changed_weights(lambda _, it: torch.full_like(it, float("nan")))),
    "infinite": (400, changed_weights(lambda _, it: torch.full_like(it, float("inf")))),
    "a scale that overflows": (400, changed_json(CONFIG, lora_alpha=1e308)),
    "another shape": (400, changed_weights(lambda name, it: it[:, :-1].contiguous() if ".lora_A" in name else it)),
    "one dimension": (400, changed_weights(lambda _, it: it.flatten())),
    "another rank": (400, changed_json(CONFIG, r=5)),
    "a rank that is no number": (400, changed_json(CONFIG, r="5")),
    "another base": (400, changed_json(FACTS, base={"id": "other", "sha256": "0" * 64})),
    "another base by name": (400, of_a_base_by_name),
    "a slow pattern": (400, changed_json(CONFIG, alpha_pattern={"(a+)+$": 1})),
    "patterns in a list": (400, changed_json(CONFIG, rank_pattern=[[1]])),
    "DoRA": (400, changed_json(CONFIG, use_dora=True)),
    "more tokens than positions": (400, changed_json(FACTS, max_tokens=100_000)),
    "more dimensions": (400, changed_json(FACTS, dim=10_000)),
    "a prompt that fills the limit": (400, changed_json(FACTS, prompts={"query": {"": "find " * 60}, "document": {}})),
    "prompts of another kind": (400, changed_json(FACTS, prompts=[1])),
    "deep JSON": (400, deep),
    "no JSON": (400, lambda _, folder: (folder / FACTS).write_bytes(b"\xff\xfe{") and folder.name),
    "another pooling": (400, changed_json(FACTS, pooling="max")),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_folder_that_means_harm_is_refused_and_nothing_changes(
    world: World, what: str, request: pytest.FixtureRequest
) -> None:
    status, prepare = HOSTILE[what]
    registry = world.registry(kept=make_adapter(world.base, 2))
    folder = world.root / f"hostile{list(HOSTILE).index(what)}"
    world.save(folder.name, make_adapter(world.base, 9))
    assert registry.load("victim", folder.name).name == "victim"  # as it is, it can be served
    before = registry.models()
    named = prepare(world, folder)
    error = refused(status, lambda: registry.load("kept", named))
    assert error.field == "folder" and "acclimate-adapter-" not in str(error), request.node.name
    assert registry.models() == before


def test_without_a_root_nothing_is_loaded(world: World) -> None:
    refused(403, lambda: Registry(world.base).load("one", "seed1"))


def test_an_adapter_of_peft_without_our_record_is_served(world: World) -> None:
    world.save("foreign", make_adapter(world.base, 4))
    (world.root / "foreign" / "acclimate.json").unlink()
    registry = world.registry()
    registry.load("foreign", "foreign")
    assert registry.pin("foreign").served.prompts == world.base.use.prompts


def test_a_link_below_the_root_is_followed(world: World) -> None:
    """As `RUN/adapter` is one."""
    (world.root / "current").symlink_to("seed1", target_is_directory=True)
    assert world.registry().load("one", "current").sha256 == make_adapter(world.base, 1).fingerprint


@pytest.mark.parametrize("swaps", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_adapters_of_one_name_are_swapped_under_load(world: World, swaps: int) -> None:
    """Every answer equals what the hash that it names gives; while the name leads nowhere, it is a 404."""
    seeds = (1, 2, 3)
    adapters = {seed: make_adapter(world.base, seed) for seed in seeds}
    texts = adapted.TEXTS
    expected = {it.fingerprint: world.base.with_adapter(it).encode(texts) for it in adapters.values()}
    registry = world.registry(one=adapters[1])
    done = threading.Event()
    answers: Counter[str] = Counter()

    def swap() -> None:
        for number in range(swaps):
            if number % 20 == 19:
                registry.drop("one")
            registry.put("one", LoadedAdapter(adapters[seeds[number % 3]], False))
        done.set()

    async def caller(engine: Engine, number: int) -> None:
        for place in itertools.count(number):
            if done.is_set():
                return
            chosen = [place % len(texts), (place + 1) % len(texts)]
            try:
                pinned = registry.pin("one")
            except ServiceError as error:
                assert error.status == 404
                answers["404"] += 1
                await asyncio.sleep(0)
                continue
            found = await engine.embed([texts[it] for it in chosen], pinned=pinned, role="document", deadline_s=60.0)
            assert pinned.sha256 is not None
            assert np.abs(found.vectors - expected[pinned.sha256][chosen]).max() < 1e-5
            answers[pinned.sha256] += 1

    async def use(engine: Engine) -> None:
        swapping = asyncio.create_task(asyncio.to_thread(swap))
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(caller(engine, number))
        await swapping

    running(Engine(registry), use)
    assert set(expected) <= set(answers)
