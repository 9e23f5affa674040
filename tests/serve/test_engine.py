"""The engine: every answer is what its model gives alone, whatever is computed beside it, and whatever fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from acclimate.models.adapter_set import AdapterSet, Choice, Row
from acclimate.models.reranker import Reranker
from acclimate.models.tokens import Tokens
from acclimate.prompts import Prompts
from acclimate.serve.adapter_files import LoadedAdapter
from acclimate.serve.engine import BatchRecord, Embedded, Engine
from acclimate.serve.errors import ServiceError
from acclimate.serve.registry import Registry
from acclimate.serve.scheduler import Limits
from tests.models import tiny
from tests.serve.world import World, make_adapter, running, until

TEXTS = ["wheat grows", "rain in the field", "soil", "the sun", "seed leaf water rice wheat", "soil"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("engine"))


async def embed(engine: Engine, registry: Registry, model: Any, texts: Sequence[str], **how: Any) -> Embedded:
    options = {"role": "document", "deadline_s": 30.0, **how}
    return await engine.embed(texts, pinned=registry.pin(model), **options)


def test_each_answer_is_its_adapter_alone(world: World) -> None:
    """Two callers with different limits, prompts and adapters at once, and the base, many times."""
    cut = {"prompts": Prompts({"": "rain "}, {"": "the "}), "max_tokens": 5, "pooling": "last"}
    adapters = {"plain": make_adapter(world.base, 1), "cut": make_adapter(world.base, 2, rank=5, **cut)}
    registry = world.registry(**adapters)
    records: list[BatchRecord] = []

    async def use(engine: Engine) -> None:
        asked: list[Any] = [
            (name, role, text) for name in ("base", "plain", "cut") for role in ("query", "document") for text in TEXTS
        ]
        answers = await asyncio.gather(
            *(embed(engine, registry, name, [text], role=role) for name, role, text in asked * 5)
        )
        for (name, role, text), answer in zip(asked * 5, answers, strict=True):
            expected = world.alone(adapters.get(name), text, role)
            assert np.abs(answer.vectors[0] - expected).max() < 1e-5, (name, role, text)
        whole = await embed(engine, registry, "cut", TEXTS, role="query")
        assert np.abs(whole.vectors - world.base.with_adapter(adapters["cut"]).encode(TEXTS, "query")).max() < 1e-5
        lengths = world.base.with_adapter(adapters["cut"]).tokenise(TEXTS, "query").lengths
        assert whole.tokens == lengths.sum() and lengths.max() == 5

    running(Engine(registry, limits=Limits(batch_tokens=60), on_batch=records.append), use)
    assert max(len(record.tokens_by_model) for record in records) > 1  # they were in one batch
    assert all(record.fill <= 1.0 for record in records)
    assert sum(record.rows for record in records) == 36 * 5 + len(set(TEXTS))


def test_a_mixture_and_fewer_dimensions(world: World) -> None:
    one, two = make_adapter(world.base, 1), make_adapter(world.base, 2)
    registry = world.registry(one=one, two=two)

    async def use(engine: Engine) -> None:
        found = await embed(engine, registry, {"one": 0.5, "two": 0.5}, TEXTS)
        expected = AdapterSet(world.base, {"one": one, "two": two})
        rows = [Row(text, adapter={"one": 0.5, "two": 0.5}) for text in TEXTS]
        assert np.abs(found.vectors - expected.encode_rows(rows)).max() < 1e-5
        with pytest.raises(ServiceError, match="dimensions = 8 of one") as caught:
            await embed(engine, registry, "one", TEXTS, dim=8)
        assert caught.value.status == 400

    running(Engine(registry), use)


def test_leading_dimensions_of_a_matryoshka_model(world: World) -> None:
    adapter = make_adapter(world.base, 1)
    registry = Registry(world.base, {"one": LoadedAdapter(adapter, True)})

    async def use(engine: Engine) -> None:
        small = await embed(engine, registry, "one", TEXTS, dim=8)
        whole = (await embed(engine, registry, "one", TEXTS)).vectors[:, :8]
        assert np.abs(small.vectors - whole / np.linalg.norm(whole, axis=1, keepdims=True)).max() < 1e-6
        for dim in (0, 33):
            with pytest.raises(ServiceError, match="1 to 32"):
                await embed(engine, registry, "one", TEXTS, dim=dim)

    running(Engine(registry), use)


def test_a_vector_that_is_not_finite_fails_its_own_request_only(world: World) -> None:
    """Weights so large that the model overflows: they are finite, what it computes is not."""
    wild, calm = make_adapter(world.base, 1, size=1e30), make_adapter(world.base, 2)
    registry = world.registry(wild=wild, calm=calm)
    records: list[BatchRecord] = []

    async def use(engine: Engine) -> None:
        names = ["calm", "wild", "base"] * 6
        answers = await asyncio.gather(
            *(embed(engine, registry, name, [text]) for name, text in zip(names, TEXTS * 3, strict=True)),
            return_exceptions=True,
        )
        for name, text, answer in zip(names, TEXTS * 3, answers, strict=True):
            if name == "wild":
                assert isinstance(answer, ServiceError) and answer.status == 500 and "not finite" in answer.found
            else:
                assert isinstance(answer, Embedded)
                expected = world.alone(calm if name == "calm" else None, text)
                assert np.abs(answer.vectors[0] - expected).max() < 1e-5
        assert engine.queue().rows == 0

    running(Engine(registry, on_batch=records.append), use)
    assert sum(record.failed_rows for record in records) == 6


def test_a_failed_batch_is_computed_again_row_by_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text makes every batch fail that it is in, as one that does not fit into memory would."""
    registry = world.registry()
    poison = int(world.base.tokenise(["leaf"]).flat[1])
    inner, batches, gate = AdapterSet.encode_tokens, [], threading.Event()

    def fails(self: AdapterSet, tokens: Tokens, choices: Sequence[Choice], dim: int) -> NDArray[np.float32]:
        batches.append(len(tokens))
        gate.wait(30.0)
        if poison in tokens.flat:
            raise MemoryError("too much")
        return inner(self, tokens, choices, dim)

    async def use(engine: Engine) -> None:
        monkeypatch.setattr(AdapterSet, "encode_tokens", fails)
        texts = ["wheat", "leaf", "soil", "rain"]
        first = asyncio.create_task(embed(engine, registry, "base", ["sun"]))
        await until(lambda: len(batches) == 1)
        asking = [asyncio.create_task(embed(engine, registry, "base", [text])) for text in texts]
        await until(lambda: engine.queue().rows == 4)
        gate.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        await first
        assert isinstance(answers[1], ServiceError)
        assert (answers[1].status, "MemoryError: too much" in answers[1].found) == (500, True)
        for place in (0, 2, 3):
            answer = answers[place]
            assert isinstance(answer, Embedded)
            assert np.abs(answer.vectors[0] - world.alone(None, texts[place])).max() < 1e-5
        assert batches == [1, 4, 1, 1, 1, 1]
        with pytest.raises(ServiceError, match="too much"):  # one bad text fails its whole request
            await embed(engine, registry, "base", texts)
        assert engine.ready and engine.queue().rows == 0

    running(Engine(registry), use)


def test_a_cancelled_request_leaves_nothing_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = world.registry()
    gate, held = threading.Event(), threading.Event()
    inner = AdapterSet.encode_tokens

    def waits(self: AdapterSet, tokens: Tokens, choices: Sequence[Choice], dim: int) -> NDArray[np.float32]:
        held.set()
        gate.wait(30.0)
        return inner(self, tokens, choices, dim)

    async def use(engine: Engine) -> None:
        monkeypatch.setattr(AdapterSet, "encode_tokens", waits)
        computing = asyncio.create_task(embed(engine, registry, "base", ["wheat"]))
        await until(held.is_set)
        waiting = asyncio.create_task(embed(engine, registry, "base", TEXTS))
        await until(lambda: engine.queue().rows == 5)
        for task in (computing, waiting):
            task.cancel()
        assert all(
            isinstance(it, asyncio.CancelledError)
            for it in await asyncio.gather(computing, waiting, return_exceptions=True)
        )
        assert engine.queue().rows == 0
        with pytest.raises(ServiceError, match=r"not done within 0.05 s") as caught:
            await embed(engine, registry, "base", ["soil"], deadline_s=0.05)
        assert caught.value.status == 504
        gate.set()
        answer = await embed(engine, registry, "base", ["soil"])
        assert np.abs(answer.vectors[0] - world.alone(None, "soil")).max() < 1e-5

    running(Engine(registry), use)


def waiting_for(gate: threading.Event) -> Callable[..., NDArray[np.float32]]:
    """AdapterSet.encode_tokens that computes only once the gate is open."""
    inner = AdapterSet.encode_tokens

    def waits(self: AdapterSet, *arguments: Any) -> NDArray[np.float32]:
        gate.wait(30.0)
        return inner(self, *arguments)

    return waits


def test_a_stuck_thread_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, gate = world.registry(), threading.Event()
    waits = waiting_for(gate)

    async def use(engine: Engine) -> None:
        monkeypatch.setattr(AdapterSet, "encode_tokens", waits)
        asking = asyncio.create_task(embed(engine, registry, "base", ["wheat"]))
        await until(lambda: not engine.alive)
        with pytest.raises(ServiceError) as caught:
            await embed(engine, registry, "base", ["soil"])
        assert (caught.value.status, engine.ready) == (503, False)
        gate.set()
        await asking
        assert engine.alive and engine.ready

    running(Engine(registry, stuck_after_s=0.5), use)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_seen_and_nobody_waits_for_it(world: World) -> None:
    registry = world.registry()

    def ends(record: BatchRecord) -> None:  # noqa: ARG001
        raise RuntimeError("the end")

    async def use(engine: Engine) -> None:
        await embed(engine, registry, "base", ["wheat"])
        await until(lambda: not engine.alive)
        with pytest.raises(ServiceError, match="lost its model thread") as caught:
            await embed(engine, registry, "base", ["soil"])
        assert caught.value.status == 503

    engine = Engine(registry, on_batch=ends)
    assert not engine.alive and not engine.ready
    running(engine, use)


def test_draining_finishes_what_is_there_and_refuses_the_rest(world: World) -> None:
    registry = world.registry()

    async def use(engine: Engine) -> None:
        asking = [asyncio.create_task(embed(engine, registry, "base", TEXTS * 20)) for _ in range(3)]
        await asyncio.sleep(0)
        draining = asyncio.create_task(engine.drain(30.0))
        await asyncio.sleep(0)
        with pytest.raises(ServiceError, match="the service stops") as caught:
            await embed(engine, registry, "base", ["soil"])
        assert caught.value.status == 503
        assert await draining
        assert [len((await task).vectors) for task in asking] == [120] * 3
        assert not engine.alive

    running(Engine(registry), use)


def test_what_is_not_done_when_the_service_stops_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, gate = world.registry(), threading.Event()
    waits = waiting_for(gate)

    async def use(engine: Engine) -> None:
        monkeypatch.setattr(AdapterSet, "encode_tokens", waits)
        asking = asyncio.create_task(embed(engine, registry, "base", ["wheat"]))
        await until(lambda: engine.queue().wait_s > 0)
        assert not await engine.drain(0.05)
        with pytest.raises(ServiceError, match="the service stops"):
            await asking
        gate.set()

    running(Engine(registry), use)


def test_what_a_request_may_not_be(world: World) -> None:
    registry = world.registry()

    async def use(engine: Engine) -> None:
        for texts, status in (
            ([], 422),
            (["a"] * 9, 413),
            ([" ".join(["wheat"] * 18)] * 3 + ["rain soil " * 9], 413),
            (["\ud800"], 422),
        ):
            with pytest.raises(ServiceError) as caught:
                await embed(engine, registry, "base", texts)
            assert caught.value.status == status, texts
        with pytest.raises(ServiceError, match="Unknown task 'code'") as caught:
            await embed(engine, registry, "base", ["a"], task="code")
        assert (caught.value.status, caught.value.field) == (400, "task")
        with pytest.raises(ServiceError, match="no reranker") as caught:
            await engine.rerank("wheat", ["soil"], deadline_s=5.0)
        assert caught.value.status == 404
        assert engine.text_of([5, 7]) == "find wheat"
        with pytest.raises(ServiceError, match="token id 999"):
            engine.text_of([5, 999])

    running(Engine(registry, limits=Limits(request_rows=8, request_tokens=39)), use)
    with pytest.raises(ServiceError, match="lost its model thread"):
        asyncio.run(embed(Engine(registry), registry, "base", ["soil"]))


def test_reranking_beside_embedding(world: World, tmp_path: Path) -> None:
    registry = world.registry()
    reranker = Reranker.load(str(tiny.tiny_reranker(tmp_path)), device="cpu", dtype="float32")
    texts = ["list files", "show disk usage", "sort lines by name", "list files"]

    async def use(engine: Engine) -> None:
        reranked, embedded, other = await asyncio.gather(
            engine.rerank("find large files", texts, deadline_s=30.0),
            embed(engine, registry, "base", TEXTS),
            engine.rerank("count words", texts[:2], deadline_s=30.0),
        )
        assert np.abs(reranked.scores - reranker.score("find large files", texts)).max() < 1e-5
        assert np.abs(other.scores - reranker.score("count words", texts[:2])).max() < 1e-5
        assert reranked.tokens == reranker.tokenise(["find large files"] * 4, texts).tokens.flat.size
        assert np.abs(embedded.vectors - world.base.encode(TEXTS)).max() < 1e-5
        assert set(engine.queue().tokens_per_s) == {"embed", "rerank"}

    running(Engine(registry, reranker), use)


def test_equal_texts_are_computed_once_with_the_cache(world: World) -> None:
    adapter = make_adapter(world.base, 1)
    registry = world.registry(one=adapter)
    records: list[BatchRecord] = []

    async def use(engine: Engine) -> None:
        answers = await asyncio.gather(*(embed(engine, registry, "one", TEXTS) for _ in range(4)))
        again = await embed(engine, registry, "one", TEXTS[::-1])
        expected = world.base.with_adapter(adapter).encode(TEXTS)
        for answer in answers:
            assert np.abs(answer.vectors - expected).max() < 1e-5
            assert answer.tokens == again.tokens
        assert np.abs(again.vectors - expected[::-1]).max() < 1e-5
        assert sum(record.rows for record in records) == 5
        assert await embed(engine, registry, "base", TEXTS)  # another model
        assert await embed(engine, registry, "one", TEXTS, role="query")  # another prompt
        await until(lambda: sum(record.rows for record in records) == 15)
        registry.put("one", LoadedAdapter(make_adapter(world.base, 2), False))  # another adapter of the same name
        changed = await embed(engine, registry, "one", TEXTS)
        assert np.abs(changed.vectors - expected).max() > 0.01
        state = engine.cache()
        assert state is not None and (state.entries, state.misses) == (20, 20)

    running(Engine(registry, cache_bytes=1 << 20, on_batch=records.append), use)
