"""sentence-transformers gives the vectors that Encoder gives: adapter folders of both kinds, merged, fully trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.formats.full_model import save_weights
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.runs.resolve import load as load_encoder
from acclimate.types import Sides
from tests.models.adapted import TEXTS, random_adapter, write_model

pytestmark = pytest.mark.slow


def same(model: Any, encoder: Encoder) -> None:
    """Queries and documents, prompts included."""
    assert np.abs(model.encode_query(TEXTS) - encoder.encode(TEXTS, "query")).max() < 1e-5
    assert np.abs(model.encode_document(TEXTS) - encoder.encode(TEXTS, "document")).max() < 1e-5


def saved(tmp_path: Path, family: str, sides: Sides, dim: int) -> tuple[Path, Encoder]:
    base = write_model(tmp_path / "base", family)
    encoder = Encoder.load(str(base), dim=dim, device="cpu", dtype="float32")
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    save_adapter(folder, random_adapter(encoder, sides=sides, dim=dim), encoder.source)
    return folder, load_encoder(folder, base=str(base), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("family", "sides", "dim"),
    [("bert", "both", 32), ("bert", "query", 16), ("qwen3", "query", 32), ("qwen3", "both", 8)],
)
def test_our_loader(tmp_path: Path, family: str, sides: Sides, dim: int) -> None:
    from acclimate.runs.sentence_transformer import load_sentence_transformer

    folder, encoder = saved(tmp_path, family, sides, dim)
    model = load_sentence_transformer(folder.parent, base=str(tmp_path / "base"), device="cpu")
    same(model, encoder)


def test_the_plain_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that leads to the base is needed: here a relative folder, as a hub id would be."""
    from sentence_transformers import SentenceTransformer

    monkeypatch.chdir(tmp_path)
    folder, encoder = saved(tmp_path, "bert", "both", 16)
    same(SentenceTransformer(str(folder), device="cpu"), encoder)


def test_the_plain_loader_of_a_query_side_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer

    monkeypatch.chdir(tmp_path)
    folder, encoder = saved(tmp_path, "bert", "query", 32)
    model = SentenceTransformer(str(folder), device="cpu")
    same(model, encoder)
    plain = Encoder.load("base", device="cpu", dtype="float32")
    assert np.array_equal(
        model.encode_document(TEXTS), SentenceTransformer("base", device="cpu").encode_document(TEXTS)
    )
    assert np.abs(model.encode_query(TEXTS) - plain.encode(TEXTS, "query")).max() > 1e-2
    # Saved by sentence-transformers and loaded again, it is still the adapter, without the base's weights.
    model.save_pretrained(str(tmp_path / "again"))
    assert not list((tmp_path / "again").rglob("model.safetensors"))
    same(SentenceTransformer(str(tmp_path / "again"), device="cpu"), encoder)


def test_a_fully_trained_model(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    base = write_model(tmp_path / "base", "bert")
    encoder = Encoder.load(str(base), dim=16, device="cpu", dtype="float32")
    before = encoder.encode(TEXTS)
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    trained = encoder.encode(TEXTS, "query")
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    save_weights(folder, encoder.model.state_dict(), encoder.source, encoder.use, encoder.source.identity)
    again = load_encoder(folder.parent, device="cpu", dtype="float32")
    assert np.abs(again.encode(TEXTS, "query") - trained).max() < 1e-6
    assert np.abs(again.encode(TEXTS) - before).max() > 1e-3
    whole = SentenceTransformer(str(folder), device="cpu").encode_query(TEXTS)[:, :16]
    assert np.abs(whole / np.linalg.norm(whole, axis=1, keepdims=True) - trained).max() < 1e-5


@pytest.mark.real
@pytest.mark.parametrize("sides", ["both", "query"])
def test_the_packaged_model_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: Sides) -> None:
    """`SentenceTransformer("RUN/adapter")` in a process that knows nothing of us, from an empty hub cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    encoder = Encoder.load(device="cpu", dtype="float32", query_prompt="query: ")
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    save_adapter(folder, random_adapter(encoder, dim=384, sides=sides), encoder.source)
    script = (
        "import sys, numpy; from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], device='cpu')\n"
        "numpy.savez(sys.argv[2], q=model.encode_query(sys.argv[3:]), d=model.encode_document(sys.argv[3:]))"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "vectors.npz"), *TEXTS]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=300)
    vectors = np.load(tmp_path / "vectors.npz")
    adapted = load_encoder(folder, device="cpu", dtype="float32")
    assert np.abs(vectors["q"] - adapted.encode(TEXTS, "query")).max() < 1e-5
    assert np.abs(vectors["d"] - adapted.encode(TEXTS, "document")).max() < 1e-5
    assert np.abs(vectors["q"] - encoder.encode(TEXTS, "query")).max() > 1e-3
