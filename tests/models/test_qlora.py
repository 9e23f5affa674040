"""A base in 4 bits: refused where it cannot be, and LoRA over it where bitsandbytes is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig

from acclimate.configs import RunConfig, TrainConfig
from acclimate.core import lora
from acclimate.errors import MissingExtraError, UsageError
from acclimate.formats.full_model import save_folded
from acclimate.models import loading
from acclimate.models.adapter import Adapter
from acclimate.models.encoder import Encoder
from tests.models import tiny

INSTALLED = importlib.util.find_spec("bitsandbytes") is not None
TEXTS = ["list files in a folder", "水稻病虫害", "show disk usage", "x"]


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    """Wide enough that a row of weights fills a block of 64 with one scale."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    return tiny.as_sentence_transformer(tiny.tiny_qwen3(tmp_path / "qwen", **sizes), "last")


def test_refused_without_cuda(qwen: Path) -> None:
    with pytest.raises(UsageError, match=r"'4bit' on the device cpu.*CUDA only.*--quantise-base none"):
        Encoder.load(str(qwen), **RunConfig(model=str(qwen), device="cpu", quantise_base="4bit").loading)


@pytest.mark.skipif(INSTALLED, reason="bitsandbytes is installed")
def test_refused_without_bitsandbytes() -> None:
    with pytest.raises(MissingExtraError, match=r"acclimate\[qlora\]"):
        loading.four_bit(torch.device("cuda"))


def test_refused_where_every_weight_trains() -> None:
    with pytest.raises(UsageError, match="--full and --quantise-base"):
        RunConfig(quantise_base="4bit", train=TrainConfig(full=True))


@pytest.mark.skipif(not INSTALLED, reason="bitsandbytes is not installed: pip install 'acclimate[qlora]'")
@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))],
)
def test_lora_trains_over_four_bits_and_merges_into_the_unquantised_base(
    device: str, qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cpu":  # bitsandbytes has slow CPU kernels, good enough for a test
        monkeypatch.setattr(loading, "four_bit", lambda _: BitsAndBytesConfig(**loading.NF4))
    exact = Encoder.load(str(qwen), device="cpu", dtype="float32")
    rough = Encoder.load(str(qwen), device=device, dtype="bfloat16", quantise_base="4bit")
    assert rough.fingerprint != Encoder.load(str(qwen), device=device, dtype="bfloat16").fingerprint
    assert rough.parameters == exact.parameters
    before = rough.encode(TEXTS)
    assert (before * exact.encode(TEXTS)).sum(1).min() > 0.8
    layers = lora.attach(rough.model, ["all-linear"], rank=4, generator=torch.Generator().manual_seed(0))
    assert np.abs(rough.encode(TEXTS) - before).max() < 1e-6
    tokens, rows = rough.tokenise(TEXTS), np.arange(len(TEXTS))
    optimizer = torch.optim.AdamW(lora.trainable_parameters(rough.model).values(), lr=0.01)
    loading.checkpoint_activations(rough.model.train())
    losses = []
    for _ in range(4):
        vectors_ND = rough.forward_tokens(tokens, rows)
        loss = (vectors_ND @ vectors_ND.T).triu(1).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    modules = {name: (layer.A[0].detach().cpu(), layer.B[0].detach().cpu()) for name, layer in layers.items()}
    facts = {"base_id": exact.source.id, "base_sha256": exact.source.sha256, "rank": 4, "alpha": 4.0}
    view = {"use": dataclasses.replace(exact.use, max_tokens=64), "normalise": True}
    adapter = Adapter(modules=modules, **facts, **view)
    (tmp_path / "merged").mkdir()
    save_folded(tmp_path / "merged", exact.source, adapter.use, adapter.sides, modules=adapter.modules)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.float32}
    expected = exact.with_adapter(adapter).encode(TEXTS)
    found = Encoder.load(str(tmp_path / "merged"), device="cpu", dtype="float32").encode(TEXTS)
    assert np.abs(found - expected).max() < 1e-5
