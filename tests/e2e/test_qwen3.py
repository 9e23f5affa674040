"""A small random Qwen3-Embedding through `adapt`, and its adapter in sentence-transformers and in plain PEFT."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from acclimate.cli.main import main
from acclimate.runs.resolve import load as load_encoder
from tests.models import tiny

HUB_ID, COMMIT = "acme/tiny-qwen3-embedding", "a" * 40
PROMPT = "Instruct: Find the remedy\nQuery:"
WORDS = [*tiny.WORDS.split(), *["水稻", "病虫害", "防治", "土壤", "肥料", "灌溉", "种植", "小麦", "玉米", "温度"]]
FLAGS = {
    "instruction": "Find the remedy",
    "device": "cpu",
    "dtype": "float32",
    "test-fraction": "0.5",
    "dev-fraction": "0.1",
    "num-negatives": "2",
    "range-max": "20",
    "rank": "4",
    "batch-size": "32",
    "epochs": "3",
    "learning-rate": "0.01",
    "sign_flips": "200",
    "dim": "24",
}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model in a hub's cache, so that every tool finds it by its id, offline."""
    entry = tmp_path / "cache" / f"models--{HUB_ID.replace('/', '--')}"
    folder = tiny.tiny_qwen3(entry / "snapshots" / COMMIT)
    tiny.as_sentence_transformer(folder, "last", prompts={"query": "Instruct: search\nQuery:", "document": ""})
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return folder


def write_pairs(path: Path, count: int = 220) -> Path:
    draw = random.Random(0)
    rows = [draw.sample(WORDS, 6) for _ in range(count)]
    lines = [
        json.dumps({"query": " ".join(row[:3]) + f" {number}", "response": " ".join(row) + f" {number}"})
        for number, row in enumerate(rows)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_adapt_then_read_by_others(cached: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    run = tmp_path / "run"
    flags = [part for name, value in FLAGS.items() for part in (f"--{name}", value)]
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    main(["adapt", str(pairs), "--out", str(run), "--model", HUB_ID, *flags])
    summary = json.loads((run / "report.json").read_text())
    assert summary["model"]["id"] == HUB_ID
    assert (run / "report.html").stat().st_size > 10_000
    texts = ["水稻 病虫害", "list files", "", "show disk usage " * 60]
    encoder = load_encoder(run, device="cpu", dtype="float32")
    assert encoder.use.prompts.prompt("query") == PROMPT and encoder.use.dim == 24
    ours = {role: encoder.encode(texts, role) for role in ("query", "document")}  # type: ignore[arg-type]
    base = load_encoder(cached, device="cpu", dtype="float32", dim=24)
    assert np.abs(ours["document"] - base.encode(texts)).max() > 1e-3  # something was learnt
    theirs = SentenceTransformer(str(run / "adapter"), device="cpu")
    assert np.abs(theirs.encode_query(texts) - ours["query"]).max() < 1e-5
    assert np.abs(theirs.encode_document(texts) - ours["document"]).max() < 1e-5
    assert np.abs(by_peft(run / "adapter", [PROMPT + text for text in texts]) - ours["query"]).max() < 1e-5


def by_peft(adapter: Path, texts: list[str]) -> Any:
    """The model card's own way with PEFT: padded at the left, the last position, cut to 24 dimensions."""
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(adapter, padding_side="left")
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(HUB_ID), str(adapter)).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        hidden_NLD = model(**batch).last_hidden_state
    return functional.normalize(hidden_NLD[:, -1, :24], dim=-1).numpy()
