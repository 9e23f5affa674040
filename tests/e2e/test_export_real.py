"""The packaged MiniLM with an adapter, as ONNX in INT8: a quarter of the size, behind the gate, found by `load`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acclimate.configs import DEFAULT_MODEL, EvaluateConfig, ExportConfig, RunConfig
from acclimate.runs.resolve import load
from acclimate.stages.export import export
from tests.stages.worlds import write_adapter, write_retrieval

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_minilm_in_int8(tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = write_retrieval(run)
    write_adapter(run / "adapter", Path(DEFAULT_MODEL), strength=0.002)
    config = RunConfig(export=ExportConfig(format="onnx", int8=True), evaluate=EvaluateConfig(sign_flips=200))
    report = export(run, tmp_path / "out", config)
    assert report["size"] < 0.3 and report["gate"]["passed"] and report["gate"]["recipe"] == "dynamic"
    assert report["parity"]["min_cosine"] > 0.9999
    exported, live = load(tmp_path / "out"), load(run, device="cpu", dtype="float32")
    texts = list(data.corpus.values())
    cosines = np.einsum("nd,nd->n", exported.encode(texts), live.encode(texts))
    assert cosines.mean() > 0.98
    assert exported.space == live.space
