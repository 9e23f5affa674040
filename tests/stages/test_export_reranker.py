"""`export` of a reranker: graphs that score as the model does, INT8 behind the gate, what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate import Reranker
from acclimate.cli.main import main
from acclimate.configs import EvaluateConfig, ExportConfig, RerankConfig, RunConfig, dump_config
from acclimate.core import lora
from acclimate.errors import MissingExtraError, ModelError, UsageError
from acclimate.evaluation.parity import score_parity
from acclimate.flows.reranker import evaluate_reranker
from acclimate.models.backends.readers import cross_encoder_reader
from acclimate.models.reranker_saving import save_reranker, save_reranker_adapter
from acclimate.serve.engine import Engine
from acclimate.serve.opening import open_service
from acclimate.stages.export_reranker import export_reranker
from acclimate.stages.train_reranker import train_reranker
from tests.conftest import shared_data
from tests.models import tiny
from tests.models.tiny import as_sentence_transformer
from tests.serve.world import running
from tests.tiny_run import WORDS, write_tiny_bert, write_tiny_retrieval

QUERIES = ["w1 w2", "w3", "", "w4 w5 " * 40]
TEXTS = ["w2 w9", "w3 w4 w5", "w6", "w7 w8 " * 60]


def config(run: Path, format: str, **export: object) -> RunConfig:
    return RunConfig(
        model=str(run / "embedder"),
        device="cpu",
        evaluate=EvaluateConfig(sign_flips=200),
        export=ExportConfig(format=format, **export),  # type: ignore[arg-type]
        rerank=RerankConfig(rerank_depth=10),
    )


def same(export: Path, live: Reranker) -> float:
    """Largest difference of two rerankers' scores, texts beyond the limit included."""
    found = Reranker.load(str(export)).score_pairs(QUERIES, TEXTS)
    return float(np.abs(found - live.score_pairs(QUERIES, TEXTS)).max())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose reranker is a whole small model with a large vocabulary, and its ONNX export in float32."""
    run = tmp_path_factory.mktemp("run")
    write_tiny_retrieval(run / "dataset")
    as_sentence_transformer(write_tiny_bert(run / "embedder"))
    base = tiny.tiny_reranker(
        run / "base", vocab_size=4000, num_hidden_layers=1, hidden_size=128, intermediate_size=256
    )
    (run / "reranker").mkdir()
    save_reranker(run / "reranker", Reranker.load(str(base), device="cpu", dtype="float32"), {"best_step": 3})
    (run / "config.toml").write_text(dump_config(config(run, "onnx")), encoding="utf-8")
    export_reranker(run / "reranker", run / "onnx", config(run, "onnx"))
    return run


def test_a_graph_gives_the_models_scores(run: Path) -> None:
    live = Reranker.load(str(run / "reranker"), device="cpu", dtype="float32")
    assert same(run / "onnx", live) < 1e-4
    report = json.loads((run / "onnx" / "report.json").read_text())
    assert report["parity"]["reader"] == "onnx" and report["parity"]["max_difference"] < 1e-4
    assert report["parity"]["spread"] > 0.01, "the pairs differ"
    facts = json.loads((run / "onnx" / "acclimate.json").read_text())
    assert facts["kind"] == "reranker" and facts["metrics"] == {"best_step": 3}
    assert facts["base"] == json.loads((run / "reranker" / "acclimate.json").read_text())["base"]
    assert not (run / "onnx" / "model.safetensors").exists()
    assert "reads query and text together" in (run / "onnx" / "README.md").read_text()


@pytest.mark.slow
def test_int8_is_smaller_near_and_proven(run: Path) -> None:
    export_reranker(run / "reranker", run / "int8", config(run, "onnx", int8=True, max_loss=0.9))
    report = json.loads((run / "int8" / "report.json").read_text())
    assert report["precision"] == "int8" and report["size"] < 0.45 and report["gate"]["passed"]
    assert [row["dev"]["split"] for row in report["gate"]["tried"]] == ["dev"] * len(report["gate"]["tried"])
    assert report["gate"]["test"]["split"] == "test" and report["gate"]["test"]["queries"] == 8
    assert 0 < report["scores"]["mean_difference"] < report["scores"]["spread"]
    live = Reranker.load(str(run / "reranker"), device="cpu", dtype="float32")
    assert same(run / "int8", live) > 1e-6
    assert "INT8 has" in (run / "int8" / "README.md").read_text()


def test_an_export_takes_a_rerankers_place(run: Path) -> None:
    """evaluate-reranker and serve read it as any other; torch's own result is the same."""
    settings = config(run, "onnx")
    exported, live = (evaluate_reranker(run, str(run / name), settings) for name in ("onnx", "reranker"))
    assert exported["reranked"] == pytest.approx(live["reranked"])
    service = open_service([str(run / "embedder")], RunConfig(device="cpu"), reranker=str(run / "onnx"))
    assert service.reranker_id == "onnx"

    async def ask(engine: Engine) -> np.ndarray:
        return (await engine.rerank("w1 w2", TEXTS, deadline_s=30.0)).scores

    expected = Reranker.load(str(run / "reranker"), device="cpu", dtype="float32").score("w1 w2", TEXTS)
    assert np.abs(running(service.engine, ask) - expected).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("kind", ["xlm-roberta", "deberta-v2", "qwen3", "adapter"])
def test_kinds_and_engines(tmp_path: Path, kind: str, format: str) -> None:
    if kind == "qwen3":
        model = tiny.tiny_qwen3_reranker(tmp_path / "model", shared_data("tokenizers", "qwen_bpe"))
    elif kind == "adapter":
        model = tmp_path / "adapter"
        model.mkdir()
        live = Reranker.load(str(tiny.tiny_reranker(tmp_path / "base")), device="cpu", dtype="float32")
        draw = torch.Generator().manual_seed(1)
        for layer in lora.attach(live.model.base_model, ["all-linear"], rank=2, alpha=2.0, generator=draw).values():
            torch.nn.init.normal_(layer.B, 0, 0.3, generator=draw)
        save_reranker_adapter(model, live, 2, 2.0, {})
    else:
        model = tiny.tiny_classifier(tmp_path / "model", kind)
    if kind == "qwen3":  # a causal model alone may be anything: it is one of ours
        whole = tmp_path / "whole"
        whole.mkdir()
        save_reranker(whole, Reranker.load(str(model), device="cpu", dtype="float32", max_tokens=150), {})
        model = whole
    export_reranker(model, tmp_path / "out", config(tmp_path, format))
    live = Reranker.load(str(model), device="cpu", dtype="float32")
    assert same(tmp_path / "out", live) < 1e-4
    export_reranker(model, tmp_path / "st", config(tmp_path, "sentence-transformers"))
    pairs = [("w1 w2", "w2 w9"), ("w3", "w4")]
    assert (
        np.abs(cross_encoder_reader(tmp_path / "st")(pairs) - live.score_pairs(*zip(*pairs, strict=True))).max() < 1e-4
    )


def test_parity_names_the_text_that_differs() -> None:
    expected = np.array([0.5, -1.0, 2.0], np.float32)
    found = score_parity(
        expected, expected + np.array([0, 0.25, 0.05], np.float32), [("q", t) for t in "abc"], "a reader"
    )
    assert found["worst"] == "b" and found["max_difference"] == pytest.approx(0.25)
    assert found["mean_difference"] == pytest.approx(0.1) and found["spread"] == pytest.approx(expected.std())


def test_what_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="--format gguf of a reranker"):
        export_reranker(run / "reranker", out, config(run, "gguf"))
    with pytest.raises(UsageError, match="is an export already"):
        export_reranker(run / "onnx", out, config(run, "onnx"))
    shutil.copytree(run / "reranker", tmp_path / "alone")
    with pytest.raises(UsageError, match="holds no dataset that the gate of --int8 could measure on"):
        export_reranker(tmp_path / "alone", out, config(run, "onnx", int8=True))
    with pytest.raises(UsageError, match=r"dtype = 'bfloat16' with onnx"):
        Reranker.load(str(run / "onnx"), dtype="bfloat16")
    with pytest.raises(UsageError, match=r"device = 'cuda' with onnx, an export for onnx"):
        Reranker.load(str(run / "onnx"), device="cuda")
    with pytest.raises(UsageError, match="is an export, which has no weights to train"):
        train_reranker(run / "dataset", None, run / "adapter", str(run / "onnx"), out, config(run, "onnx"))
    damaged = tmp_path / "damaged"
    shutil.copytree(run / "onnx", damaged)
    (damaged / "onnx" / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx is missing"):
        Reranker.load(str(damaged))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else find(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'acclimate\[onnx\]'"):
        Reranker.load(str(run / "onnx"))
    assert not out.exists()


@pytest.mark.slow
def test_other_scores_are_not_shipped(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "acclimate.stages.export_reranker.pair_graph_reader", lambda *_: lambda pairs: np.ones(len(pairs))
    )
    with pytest.raises(ModelError, match="reads scores from the export that are not the model's"):
        export_reranker(run / "reranker", tmp_path / "out", config(run, "onnx"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "st")
    main(["export", str(run / "reranker"), "--out", out, "--format", "sentence-transformers"])
    shown = capsys.readouterr().out
    assert "read by sentence-transformers in float32: largest difference" in shown and shown.endswith(f"{out}\n")
    (tmp_path / "texts.txt").write_text(f"{WORDS[1]} {WORDS[2]}\n{WORDS[5]}\n")
    main(["rerank", "w1 w2", "--texts", str(tmp_path / "texts.txt"), "--reranker", str(run / "onnx")])
    assert "w1 w2" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(run / "reranker"), "--out", out, "--int8", "--format", "gguf"])
    assert "--format gguf of a reranker" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(run / "reranker"), "--out", out, "--rerank-depth", "20"])
    assert "export in float32 does not read rerank_depth" in capsys.readouterr().err
