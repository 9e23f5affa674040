"""`export --format gguf`: files that llama.cpp reads with their tokenizer and pooling; what it computes otherwise."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from acclimate.configs import ExportConfig, RunConfig
from acclimate.errors import MissingExtraError, ModelError, UsageError
from acclimate.evaluation.parity import SAMPLE, below_limit
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.backends.llama_cpp import has_llama_cpp, llama_cpp_reader
from acclimate.models.encoder import Encoder
from acclimate.runs.resolve import load
from acclimate.stages.export import export
from acclimate.types import ROLES, Sides
from tests.conftest import shared_data
from tests.models.adapted import random_adapter
from tests.models.tiny import as_sentence_transformer, tiny_bert, tiny_e5, tiny_model, tiny_qwen3
from tests.stages.worlds import write_adapter

reads = pytest.mark.skipif(
    not has_llama_cpp(), reason="node with node-llama-cpp is not here: npm install node-llama-cpp"
)


def config(model: Path, **settings: object) -> RunConfig:
    return RunConfig(model=str(model), export=ExportConfig(format="gguf", **settings))  # type: ignore[arg-type]


TEXTS = ["list files in a folder", "Show disk-usage, sorted!", "水稻病虫害", "prices: 3.4 %", "résumé of the day"]


def base_model(folder: Path, family: str) -> Path:
    """A tiny random model with a real tokenizer and prompts."""
    if family == "qwen3":
        tiny_qwen3(folder, bpe=shared_data("tokenizers", "qwen_bpe"))
    elif family == "e5":
        tiny_e5(folder, ["find: a", *TEXTS, *SAMPLE])
    else:
        tiny_bert(folder)
    prompts = {"query": "find: ", "document": ""}
    return as_sentence_transformer(folder, "last" if family == "qwen3" else "mean", prompts=prompts)


def adapted(folder: Path, base: Path, sides: Sides = "both", dim: int = 32) -> Path:
    """A run with a random adapter."""
    encoder = Encoder.load(str(base), dim=dim, device="cpu", dtype="float32")
    adapter = folder / "run" / "adapter"
    adapter.mkdir(parents=True)
    save_adapter(adapter, random_adapter(encoder, sides=sides, dim=dim), encoder.source)
    return folder / "run"


@reads
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "sides", "dim"), [("bert", "both", 32), ("bert", "query", 16), ("qwen3", "both", 32), ("e5", "both", 32)]
)
def test_llama_cpp_gives_the_same_vectors(tmp_path: Path, family: str, sides: Sides, dim: int) -> None:
    base = base_model(tmp_path / "base", family)
    run, out = adapted(tmp_path, base, sides, dim), tmp_path / "out"
    report = export(run, out, config(base))
    assert report["parity"]["reader"] == "llama.cpp" and report["parity"]["min_cosine"] > 0.9999
    assert report["models"] == (2 if sides == "query" else 1)
    reference = load(run, base=str(base), device="cpu", dtype="float32")
    read, texts = (
        llama_cpp_reader(out, dim, reference.use.max_tokens),
        below_limit(dict.fromkeys(ROLES, TEXTS), reference),
    )
    for role in ROLES:
        assert np.einsum("nd,nd->n", read(texts[role], role), reference.encode(texts[role], role)).min() > 0.9999
    assert "gguf/model.gguf" in (out / "README.md").read_text()
    assert all(not (file.parents[1] / "model.safetensors").exists() for file in out.rglob("model.gguf"))


@reads
@pytest.mark.slow
def test_half_of_the_size_in_float16(tmp_path: Path) -> None:
    base = as_sentence_transformer(tiny_bert(tmp_path / "base", hidden_size=128, intermediate_size=512))
    write_adapter(tmp_path / "adapter", base, strength=0.1)
    report = export(tmp_path / "adapter", tmp_path / "out", config(base, float16=True))
    assert report["precision"] == "float16" and report["size"] < 0.6 and report["parity"]["min_cosine"] > 0.9999


def test_without_llama_cpp_it_is_written_and_said_to_be_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = base_model(tmp_path / "base", "bert")
    monkeypatch.setattr("acclimate.stages.export.has_llama_cpp", lambda: False)
    report = export(adapted(tmp_path, base), tmp_path / "out", config(base))
    assert "parity" not in report
    assert "was not compared with the model, because llama.cpp is not here: npm install" in capsys.readouterr().err
    assert "**Not compared**" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ModelError, match=r"is an export for llama\.cpp, which does not run here"):
        load(tmp_path / "out")


@pytest.mark.parametrize("what", ["architecture", "activation", "case"])
def test_what_llama_cpp_would_compute_otherwise(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "base"
    if what == "architecture":
        base = as_sentence_transformer(tiny_model(folder, "modernbert"), "cls")
        said = "--format gguf of the architecture modernbert. Possible: bert, roberta"
    else:
        base = as_sentence_transformer(tiny_bert(folder, **({"hidden_act": "relu"} if what == "activation" else {})))
        said = "computes relu, and llama.cpp gelu"
    if what == "case":
        tokenizer = json.loads((base / "tokenizer.json").read_text())
        tokenizer["normalizer"]["lowercase"] = False
        (base / "tokenizer.json").write_text(json.dumps(tokenizer))
        said = r"llama\.cpp would not make the same tokens \(the tokenizer is WordPiece that keeps upper case"
    write_adapter(tmp_path / "adapter", base, strength=0.1)
    with pytest.raises(ModelError, match=said):
        export(tmp_path / "adapter", tmp_path / "out", config(base))
    assert not (tmp_path / "out").exists()


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_model(tmp_path / "base", "bert")
    run, out = adapted(tmp_path, base), tmp_path / "out"
    with pytest.raises(UsageError, match="--int8 with --format gguf"):
        export(run, out, config(base, int8=True))
    halved = RunConfig(model=str(base), export=ExportConfig(format="onnx", float16=True))
    with pytest.raises(
        UsageError, match=r"--float16 with --format onnx\. Possible: --float16 with --format openvino or"
    ):
        export(run, out, halved)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else found(name, *rest))
    with pytest.raises(MissingExtraError, match=r"pip install 'acclimate\[gguf\]'"):
        export(run, out, config(base))
