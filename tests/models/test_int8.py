"""`dtype = int8` of whole models: against float arithmetic on rounded numbers, with adapters, where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from acclimate.configs import RunConfig
from acclimate.core import int8_linear
from acclimate.core.int8_linear import LEAST_FEATURES, activations_dtype, rounded_rows, why_not_int8
from acclimate.core.linears import linears
from acclimate.errors import UsageError
from acclimate.flows.settings import configured
from acclimate.models import dtypes
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_set import AdapterSet, Row
from acclimate.models.dtypes import check_int8, choose_dtype
from acclimate.models.encoder import Encoder
from acclimate.models.reranker import Reranker
from tests.models import tiny
from tests.models.test_adapter_set import TEXTS, adapter_of

needs_int8 = pytest.mark.skipif(why_not_int8() is not None, reason=f"needs INT8 products: {why_not_int8()}")
MAKERS: dict[str, Callable[[Path], Path]] = {
    "bert": tiny.tiny_bert,
    "xlm-roberta": tiny.tiny_xlm_roberta,
    "qwen3": tiny.tiny_qwen3,
    "modernbert": lambda folder: tiny.tiny_model(folder, "modernbert"),
}


def made(folder: Path, kind: str) -> str:
    return str(tiny.as_sentence_transformer(MAKERS[kind](folder), "last" if kind == "qwen3" else "mean"))


def in_float(folder: str) -> Encoder:
    """The slow reference: float32 layers whose weights and inputs are rounded as by definition, one after the other."""
    encoder = Encoder.load(folder, device="cpu", dtype="float32")
    model: Any = encoder.model

    def restored(values: torch.Tensor) -> torch.Tensor:
        codes, scales = rounded_rows(values)
        return codes.float() * scales

    def round_input(_: nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        scale = given[0].abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
        return ((given[0] / scale).round() * scale,)

    layers: dict[str, Any] = linears(model)
    for layer in layers.values():
        assert min(layer.in_features, layer.out_features) >= LEAST_FEATURES
        layer.weight.data = restored(layer.weight)
        layer.register_forward_pre_hook(round_input)
    words = model.get_input_embeddings()
    words.weight.data = restored(words.weight)
    return encoder


def stronger(adapter: Adapter) -> Adapter:
    return replace(adapter, modules={name: (A_rI, 6 * B_Or) for name, (A_rI, B_Or) in adapter.modules.items()})


def cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    return float((first * second).sum(1).min())


@needs_int8
@pytest.mark.parametrize("kind", MAKERS)
def test_equals_float_arithmetic_on_rounded_numbers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / kind, kind)
    exact = Encoder.load(folder, device="cpu", dtype="float32")
    rounded = in_float(folder).encode(TEXTS)
    fast = Encoder.load(folder, device="cpu", dtype="int8")
    assert fast.dtype == activations_dtype()
    assert fast.parameters == exact.parameters
    assert cosines(fast.encode(TEXTS), exact.encode(TEXTS)) > 0.98
    monkeypatch.setattr(dtypes, "activations_dtype", lambda: torch.float32)  # without bfloat16's own rounding
    fast = Encoder.load(folder, device="cpu", dtype="int8")
    vectors = fast.encode(TEXTS)
    assert cosines(vectors, rounded) > 0.9999
    assert cosines(vectors, rounded) > cosines(vectors, exact.encode(TEXTS))
    alone = np.concatenate([fast.encode([text]) for text in TEXTS])
    assert cosines(vectors, alone) > 0.9999, "no text depends on the others of its batch"


@needs_int8
@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_adapters_stay_live_alone_and_in_mixed_batches(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtypes, "activations_dtype", lambda: torch.float32)
    folder = made(tmp_path / kind, kind)
    base = Encoder.load(folder, device="cpu", dtype="int8")
    adapters = {"a": stronger(adapter_of(base, 2)), "b": stronger(adapter_of(base, 5, layers="0"))}
    before = base.encode(TEXTS)
    rows = [Row(text, adapter=name) for text in TEXTS for name in ("a", "b", None)]
    mixed = AdapterSet(base, adapters).encode_rows(rows)
    for number, name in enumerate(("a", "b", None)):
        live = base if name is None else base.with_adapter(adapters[name])
        assert cosines(mixed[number::3], live.encode(TEXTS)) > 0.9999
        reference = in_float(folder)
        if name is not None:
            reference = reference.with_adapter(adapters[name])
            assert cosines(live.encode(TEXTS), before) < 0.999, "the adapter changes something"
        # The update itself reads what was not rounded, and only the base's layers round: hooks are the base's.
        assert cosines(live.encode(TEXTS), reference.encode(TEXTS)) > 0.9999
    assert np.array_equal(base.encode(TEXTS), before), "forks leave the base alone"


@needs_int8
def test_the_key_of_vectors_tells_it_apart_and_the_space_does_not(tmp_path: Path) -> None:
    folder = made(tmp_path, "bert")
    eight, rough, exact = (Encoder.load(folder, device="cpu", dtype=dtype) for dtype in ("int8", "bfloat16", "float32"))
    assert len({encoder.role_fingerprint("document") for encoder in (eight, rough, exact)}) == 3
    assert eight.space == rough.space == exact.space
    assert eight.number_format == f"{activations_dtype()}, weights in 8 bits"


def test_refused_where_it_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'int8' on the device cuda"):
        check_int8(torch.device("cuda"))
    with pytest.raises(UsageError, match="'int8' for training"):
        choose_dtype("int8", torch.device("cpu"), tmp_path, "training")
    with pytest.raises(UsageError, match="int8 exclude each other"):
        RunConfig(dtype="int8", quantise_base="4bit")
    with pytest.raises(UsageError, match="'int8' with the reranker"):
        Reranker.load(str(tiny.tiny_reranker(tmp_path / "reranker")), device="cpu", dtype="int8")
    monkeypatch.setattr(int8_linear, "_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(UsageError, match=r"neither VNNI nor AMX.*float32, bfloat16.*export RUN --format onnx --int8"):
        Encoder.load(made(tmp_path / "bert", "bert"), device="cpu", dtype="int8")


@pytest.mark.parametrize("command", ["adapt", "train", "train-reranker", "refresh", "merge", "rerank"])
def test_commands_that_cannot_work_in_it(command: str) -> None:
    with pytest.raises(UsageError, match=f"'int8' with {command}.*evaluate, vectors, index, search"):
        configured(command, {"dtype": "int8"})


def test_a_reranker_beside_it_has_a_format_of_its_own() -> None:
    config = configured("search", {"dtype": "int8"})
    assert config.loading["dtype"] == "int8" and config.reranker_dtype == "auto"
    assert RunConfig(dtype="bfloat16").reranker_dtype == "bfloat16"
