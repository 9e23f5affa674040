"""Dense layers behind the pooling: read, trained through, written again, as sentence-transformers has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.errors import ModelError
from acclimate.formats.full_model import save_folded
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.runs.resolve import load as load_encoder
from acclimate.runs.sentence_transformer import load_sentence_transformer
from tests.models import tiny
from tests.models.adapted import random_adapter

TEXTS = ["list files in a folder", "水稻病虫害", "", "show disk usage " * 60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Dense layers, as in EmbeddingGemma; written by sentence-transformers itself."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    plain, out = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("gemma-like")
    torch.manual_seed(0)
    layers = [Dense(32, 48), Dense(48, 24, bias=False, activation_function=torch.nn.Identity())]
    transformer = Transformer(str(tiny.tiny_bert(plain)))
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    model = SentenceTransformer(
        modules=[transformer, Pooling(32, "mean"), *layers, Normalize()], prompts=prompts, device="cpu"
    )
    model.save(str(out))
    return out


@pytest.mark.slow
def test_equals_sentence_transformers_also_adapted_and_folded(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load(str(folder), device="cpu", dtype="float32")
    assert (encoder.use.dim, encoder.source.files.hidden, len(encoder.source.files.heads)) == (24, 32, 2)
    theirs = SentenceTransformer(str(folder), device="cpu")
    assert np.abs(encoder.encode(TEXTS, "query") - theirs.encode_query(TEXTS)).max() < 1e-5
    assert np.abs(encoder.encode(TEXTS) - theirs.encode_document(TEXTS)).max() < 1e-5
    adapter = random_adapter(encoder, dim=16)
    adapted = encoder.with_adapter(adapter)
    expected = adapted.encode(TEXTS, "query")
    assert expected.shape == (4, 16)
    for name in ("adapter", "folded"):
        (tmp_path / name).mkdir()
    save_adapter(tmp_path / "adapter", adapter, encoder.source)
    save_folded(tmp_path / "folded", encoder.source, adapter.use, adapter.sides, modules=adapter.modules)
    by_class = load_sentence_transformer(tmp_path / "adapter", base=str(folder), device="cpu")
    assert np.abs(by_class.encode_query(TEXTS) - expected).max() < 1e-5
    again = load_encoder(tmp_path / "adapter", base=str(folder), device="cpu", dtype="float32")
    assert np.abs(again.encode(TEXTS, "query") - expected).max() < 1e-5
    folded = SentenceTransformer(str(tmp_path / "folded"), device="cpu")
    assert np.abs(folded.encode_query(TEXTS) - expected).max() < 1e-5
    ours = Encoder.load(str(tmp_path / "folded"), device="cpu", dtype="float32")
    assert np.abs(ours.encode(TEXTS, "query") - expected).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.Hardshrink"}, "activation_function is Hardshrink"),
        ({"in_features": 31}, "takes 31 dimensions, what comes before it gives 32"),
        ({"bias": False}, "cannot be used"),
        ({"out_features": None}, "in_features and out_features"),
    ],
)
def test_damaged_heads(folder: Path, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    path = broken / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=message):
        Encoder.load(str(broken), device="cpu")
