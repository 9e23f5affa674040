"""AdapterSet: every row is what its adapter gives alone, whatever stands beside it, and whichever threads ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from acclimate.core.linears import linear_names
from acclimate.errors import ModelError, UsageError
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_set import AdapterSet, Row
from acclimate.models.encoder import Encoder
from acclimate.prompts import Prompts
from acclimate.types import Sides
from tests.models import tiny

TEXTS = [
    "list files in a folder",
    "水稻病虫害 防治方法",
    "",
    "x",
    "show disk usage " * 30,
    "find large files, sort lines by name",
    "sort lines",
    "copy text to a directory",
]
MAKERS: dict[str, Callable[[Path], Path]] = {
    "bert": tiny.tiny_bert,
    "xlm-roberta": tiny.tiny_xlm_roberta,
    "qwen3": tiny.tiny_qwen3,
    "mpnet": lambda folder: tiny.tiny_model(folder, "mpnet"),  # its attention cannot be packed
}
SECOND = Prompts({"": "find ", "code": "print "}, {"": "text "})


def adapter_of(base: Encoder, rank: int, *, sides: Sides = "both", layers: str = "", **use: Any) -> Adapter:
    """A random adapter on the layers whose path has `layers` in it, strong enough to be seen."""
    generator = torch.Generator().manual_seed(rank)
    modules = {}
    for name in linear_names(base.model):
        linear: Any = base.model.get_submodule(name)
        if layers in name:
            A_rI = torch.randn(rank, linear.in_features, generator=generator) / 6
            modules[name] = (A_rI, torch.randn(linear.out_features, rank, generator=generator) / (6 * rank))
    source = base.source
    used = replace(base.use, **use)
    return Adapter(source.id, source.sha256, rank, float(rank), modules, used, source.files.normalise, sides)


@dataclass(frozen=True)
class World:
    """A base, its set, and each adapter by itself."""

    base: Encoder
    adapters: AdapterSet

    @classmethod
    def of(cls, folder: Path, dtype: str = "float32") -> World:
        base = Encoder.load(str(folder), pooling="mean", device="cpu", dtype=dtype)
        cut = {"prompts": SECOND, "max_tokens": 9, "pooling": "last"}
        return cls(
            base,
            AdapterSet(
                base,
                {
                    "one": adapter_of(base, 1),
                    "two": adapter_of(base, 2, sides="query"),
                    "four": adapter_of(base, 4, layers="0."),  # nothing for the second layer
                    "cut": adapter_of(base, 7, **cut),
                    "cut query": adapter_of(base, 3, sides="query", **cut),
                },
            ),
        )

    def alone(self, row: Row) -> NDArray[np.float32]:
        """The slow reference: an encoder with one adapter, one text. A mixture is the adapter of all their ranks."""
        if row.adapter is None:
            return self.base.encode([row.text], row.role, row.task)[0]
        weights = {row.adapter: 1.0} if isinstance(row.adapter, str) else row.adapter
        members = {name: self.adapters.adapters[name] for name in weights}
        adapter = next(iter(members.values()))
        active = {name: one for name, one in members.items() if one.sides == "both" or row.role == "query"}
        modules: dict[str, Any] = {}
        for name, member in active.items():
            for path, (A_rI, B_Or) in member.modules.items():
                modules.setdefault(path, []).append((A_rI, weights[name] * B_Or))
        joined = {
            path: (torch.cat([A for A, _ in ps]), torch.cat([B for _, B in ps], 1)) for path, ps in modules.items()
        }
        return self.base.with_adapter(replace(adapter, modules=joined, sides="both")).encode(
            [row.text], row.role, row.task
        )[0]

    def check(self, rows: Sequence[Row]) -> None:
        found = self.adapters.encode_rows(rows)
        expected = np.stack([self.alone(row) for row in rows])
        assert found.dtype == np.float32 and found.shape == (len(rows), 32)
        if self.base.dtype == torch.float32:
            assert np.abs(found - expected).max() < 1e-5
        else:
            assert (found * expected).sum(1).min() >= 0.9999


@pytest.fixture(scope="module", params=MAKERS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.of(MAKERS[request.param](tmp_path_factory.mktemp(request.param)))


ANY_ADAPTER = st.one_of(
    st.sampled_from([None, "one", "two", "four", "cut", "cut query"]),
    st.dictionaries(st.sampled_from(["one", "two", "four"]), st.sampled_from([0.0, 0.5, 1.0, -0.3]), min_size=1),
    st.fixed_dictionaries({"cut": st.sampled_from([0.2, 0.7]), "cut query": st.just(1.0)}),
)
ANY_ROW = st.builds(Row, text=st.sampled_from(TEXTS), role=st.sampled_from(["query", "document"]), adapter=ANY_ADAPTER)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ANY_ROW, min_size=1, max_size=12), chunk_tokens=st.sampled_from([1, 40, 4096]))
def test_every_row_is_its_adapter_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, rows: list[Row], chunk_tokens: int
) -> None:
    """Roles, prompts, limits, poolings, sides, ranks, missing layers and weights all differ from row to row."""
    monkeypatch.setattr("acclimate.models.encoder.CHUNK_TOKENS", {"cpu": chunk_tokens})
    world.check(rows)


def test_many_rows_in_one_batch(world: World) -> None:
    choices = [None, "one", "two", "four", "cut", "cut query", {"one": 0.5, "four": 0.5}, {"one": 0.9, "two": -0.2}]
    roles: list[Any] = ["query", "document"]
    world.check(
        [Row(text, role, adapter=choice) for text in TEXTS for role in roles for choice in choices]
        + [Row("text", "query", "code", "cut")]
    )


def test_bfloat16(tmp_path: Path) -> None:
    world = World.of(tiny.tiny_bert(tmp_path), "bfloat16")
    world.check([Row(text, adapter=name) for text in TEXTS for name in (None, *world.adapters.adapters)])


def test_rows_are_computed_once_and_the_base_is_left_alone(world: World) -> None:
    before = world.base.encode(TEXTS)
    rows = [Row("x", adapter="one"), Row("sort lines"), Row("x", adapter={"one": 1.0}), Row("x")]
    found = world.adapters.encode_rows(rows)
    assert np.array_equal(found[0], found[2]) and not np.allclose(found[0], found[3], atol=1e-3)
    assert world.adapters.encode_rows([]).shape == (0, 32)
    assert np.array_equal(world.base.encode(TEXTS), before)
    shared = {parameter.data_ptr() for parameter in world.base.model.parameters()}
    assert shared <= {parameter.data_ptr() for parameter in world.adapters._model.parameters()}


def test_what_cannot_be_is_named(world: World) -> None:
    base, adapters = world.base, world.adapters
    with pytest.raises(UsageError, match=r"no adapter is called 'three'.*one, two, four"):
        adapters.encode_rows([Row("x", adapter="three")])
    with pytest.raises(UsageError, match="one and cut cannot be mixed in one row: prompts"):
        adapters.encode_rows([Row("x", adapter={"one": 0.5, "cut": 0.5})])
    with pytest.raises(UsageError, match="finite weights"):
        adapters.encode_rows([Row("x", adapter={})])
    with pytest.raises(UsageError, match="finite weights"):
        adapters.encode_rows([Row("x", adapter={"one": float("nan")})])
    sizes = AdapterSet(base, {"full": adapter_of(base, 2), "small": adapter_of(base, 2, dim=8)})
    with pytest.raises(UsageError, match=r"different dimensions: 32 \(full\), 8 \(small\)"):
        sizes.encode_rows([Row("x", adapter="full"), Row("x", adapter="small")])
    assert sizes.encode_rows([Row("x", adapter="small")]).shape == (1, 8)
    with pytest.raises(ModelError, match="adapter lower: lowercase"):
        AdapterSet(base, {"lower": adapter_of(base, 2, lowercase=True)})
    with pytest.raises(ModelError, match="made for base"):
        AdapterSet(base, {"other": replace(adapter_of(base, 2), base_sha256="0" * 64)})
    with pytest.raises(UsageError, match="carries an adapter already"):
        AdapterSet(base.with_adapter(adapter_of(base, 2)), {"one": adapter_of(base, 2)})
    with pytest.raises(TypeError):
        adapters.adapters["new"] = adapter_of(base, 2)  # type: ignore[index]


def test_eight_threads(world: World) -> None:
    """Encoders over one base and one tokenizer, with and without adapters, and the set, all at once.

    With an adapter for queries beside a thread of documents 12 of 12 batches of queries were wrong, and with limits of
    16 and 128 on one tokenizer 5 of 6 results.
    """
    base, adapters = world.base, world.adapters
    encoders = [base.with_adapter(adapters.adapters[name]) for name in ("two", "cut", "cut query", "one")]
    rows = [Row(text, adapter=name) for text in TEXTS for name in (None, "one", "cut", "two")]
    calls: list[Callable[[], NDArray[np.float32]]] = [
        *(lambda e=encoder: e.encode(TEXTS, "query") for encoder in (base, *encoders)),  # type: ignore[misc]
        *(lambda e=encoder: e.encode(TEXTS * 2, "document") for encoder in (base, *encoders)),  # type: ignore[misc]
        lambda: adapters.encode_rows(rows),
        lambda: adapters.encode_rows([replace(row, role="query") for row in rows[::-1]]),
    ]
    expected = [call() for call in calls]

    def wrong(thread: int) -> int:
        order = np.random.default_rng(thread).permutation(len(calls) * 2) % len(calls)
        return sum(not np.array_equal(calls[number](), expected[number]) for number in order)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(8))) == 0
