"""Reranker: raw logits, equal to one pair at a time and to sentence-transformers' CrossEncoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from acclimate.errors import ModelError, UsageError
from acclimate.models.reranker import Reranker
from tests.models import tiny

QUERIES = ["list files", "list files", "show disk usage", "x " * 80, "", "list files"]
TEXTS = ["in a folder", "水稻病虫害 " * 40, "memory", "sort lines " * 50, "count", "in a folder"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_reranker(tmp_path_factory.mktemp("tiny-reranker"))


def test_equals_one_pair_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acclimate.models.reranker.CHUNK_TOKENS", {"cpu": 80})
    reranker = Reranker.load(str(folder), device="cpu", dtype="float32")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = []
    for query, text in zip(QUERIES, TEXTS, strict=True):
        inputs = tokenizer(query, text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            expected.append(model(**inputs).logits[0, 0].item())
    scores = reranker.score_pairs(QUERIES, TEXTS)
    assert scores.dtype == np.float32 and np.abs(scores - expected).max() < 1e-5
    assert np.ptp(scores) > 0.01  # the pairs do differ


@pytest.mark.slow
def test_equals_cross_encoder_before_its_sigmoid(folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
    scores = Reranker.load(str(folder), device="cpu", dtype="float32").score_pairs(QUERIES, TEXTS)
    assert np.abs(scores - theirs.predict(list(zip(QUERIES, TEXTS, strict=True)))).max() < 1e-5


def test_score_is_score_pairs_with_one_query(folder: Path) -> None:
    reranker = Reranker.load(str(folder), device="cpu", dtype="float32")
    pairs = reranker.score_pairs(["list files"] * len(TEXTS), TEXTS)
    assert np.allclose(reranker.score("list files", TEXTS), pairs, atol=1e-6)
    assert reranker.score("list files", []).shape == (0,)
    with pytest.raises(UsageError, match="1 queries with 2 texts"):
        reranker.score_pairs(["a"], ["b", "c"])


def test_the_limit_cuts_the_longer_side(folder: Path) -> None:
    short = Reranker.load(str(folder), max_tokens=10, device="cpu", dtype="float32")
    assert short.max_tokens == 10
    cut = short.score("list files", ["in a folder show disk usage find large sort lines"])
    assert np.allclose(cut, short.score("list files", ["in a folder show disk"]), atol=1e-6)  # 10 - 3 special - 2 = 5
    with pytest.raises(UsageError, match="max_tokens = 65"):
        Reranker.load(str(folder), max_tokens=65)


def test_what_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="3 labels"):
        Reranker.load(str(tiny.tiny_reranker(tmp_path / "three", num_labels=3)))
    with pytest.raises(ModelError, match=r"no reranker.*BertModel"):
        Reranker.load(str(tiny.tiny_bert(tmp_path / "bert")))
    with pytest.raises(ModelError, match="no such folder"):
        Reranker.load(str(tmp_path / "nowhere"))
