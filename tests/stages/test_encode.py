"""encode: texts in, vectors out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from acclimate.configs import RunConfig
from acclimate.errors import DataError, StorageError, UsageError
from acclimate.models.encoder import Encoder
from acclimate.stages.encode import encode
from tests.models import tiny

TEXTS = ["list files", "", "水稻病虫害", "list files"]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    model = tiny.as_sentence_transformer(tiny.tiny_bert(tmp_path / "model"), prompts={"query": "find "})
    return RunConfig(model=str(model), device="cpu", dtype="float32")


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_rows_follow_the_file(suffix: str, config: RunConfig, tmp_path: Path) -> None:
    source = tmp_path / f"texts{suffix}"
    rows = TEXTS if suffix == ".txt" else [json.dumps({"_id": "1", "text": text}) for text in TEXTS]
    source.write_text("\n".join(rows) + "\n", encoding="utf-8")
    expected = Encoder.load(config.base_model, **config.loading).encode(TEXTS, "query")
    report = encode(source, "query", None, tmp_path / "out.npy", config)
    assert (report["texts"], report["dim"], report["model"]) == (4, 32, "model")
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)
    encode(source, "query", None, tmp_path / "out.safetensors", config)
    assert np.array_equal(load_file(tmp_path / "out.safetensors")["vectors"], expected)


def test_bad_input_leaves_the_older_file_alone(config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    out.write_bytes(b"older")
    broken = tmp_path / "texts.jsonl"
    broken.write_text('{"text": "fine"}\n{"title": "no text"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"texts\.jsonl, row 2: has the fields title"):
        encode(broken, "document", None, out, config, replace=True)
    broken.write_text('{"text": "fine"}\n{"text"\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 2: not JSON"):
        encode(broken, "document", None, out, config, replace=True)
    with pytest.raises(DataError, match="no such file"):
        encode(tmp_path / "nothing.txt", "document", None, out, config, replace=True)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("café".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        encode(latin, "document", None, out, config, replace=True)
    assert out.read_bytes() == b"older"
    assert not list(tmp_path.glob(".*partial"))


def test_impossible_outputs(config: RunConfig, tmp_path: Path) -> None:
    source = tmp_path / "texts.txt"
    source.write_text("list files\n")
    with pytest.raises(UsageError, match=r"\.npy, \.safetensors"):
        encode(source, "document", None, tmp_path / "out.csv", config)
    with pytest.raises(StorageError, match="cannot be written"):
        encode(source, "document", None, tmp_path / "no" / "such" / "folder.npy", config)
