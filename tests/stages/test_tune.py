"""`tune`: the backends of this machine, the one that is chosen, and what `serve` makes of it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from acclimate.cli.main import main
from acclimate.configs import RunConfig, dump_config
from acclimate.core import int8_linear
from acclimate.core.int8_linear import is_int8, why_not_int8
from acclimate.errors import StorageError
from acclimate.flows.export import tune
from acclimate.models.encoder import Encoder
from acclimate.runs.backend import Backend, chosen_backend
from acclimate.runs.resolve import load, trained_hash
from acclimate.serve.engine import Engine
from acclimate.serve.errors import ServiceError
from acclimate.serve.opening import Service, open_service
from tests.serve.world import running
from tests.stages.worlds import config_for, tiny_embedder, write_adapter, write_retrieval

TEXTS = ["wheat rice", "water", "soil field seed"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a tiny model, tuned without OpenVINO."""
    folder = tmp_path_factory.mktemp("tune")
    base = tiny_embedder(folder / "base")
    run = folder / "run"
    write_retrieval(run)
    (run / "config.toml").write_text(dump_config(config_for(base)), encoding="utf-8")
    write_adapter(run / "adapter", base, strength=0.1)
    found = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            importlib.util, "find_spec", lambda name, *rest: None if name == "openvino" else found(name, *rest)
        )
        tune(run, tune_seconds=0.01, sign_flips=100)
    return run


def report_of(run: Path) -> dict[str, object]:
    return json.loads((run / "tuned" / "report.json").read_text())  # type: ignore[no-any-return]


def choose(run: Path, engine: str, precision: str, export: str | None) -> None:
    """As if this backend had been the fastest."""
    backend = Backend(engine, precision, 1, export, trained_hash(run))  # type: ignore[arg-type]
    (run / "tuned" / "backend.json").write_text(json.dumps(dataclasses.asdict(backend)))


def query_vectors(service: Service, name: str) -> np.ndarray:
    async def ask(engine: Engine) -> np.ndarray:
        pinned = service.registry.pin(name)
        return (await engine.embed(TEXTS, pinned=pinned, role="query", deadline_s=30.0)).vectors

    return running(service.engine, ask)


def test_the_fastest_that_holds_the_gate_is_chosen(tuned: Path) -> None:
    report = report_of(tuned)
    measured: list[dict[str, object]] = report["measured"]  # type: ignore[assignment]
    torch_int8 = set() if why_not_int8() else {"torch int8"}
    assert {row["backend"] for row in measured} == {"torch float32", "torch bfloat16", "onnx float32", *torch_int8}
    assert all("gate" in row for row in measured if row["backend"] == "torch int8")
    assert all(set(row["speeds"]) == {"one", "batch", "bulk"} for row in measured)  # type: ignore[call-overload]
    holding = [row for row in measured if row["holds"]]
    assert report["chosen"] == max(holding, key=lambda row: row["speeds"]["batch"])  # type: ignore[index]
    assert next(row for row in measured if row["backend"] == "torch bfloat16")["gate"]["split"] == "test"  # type: ignore[index]
    skipped: dict[str, str] = report["skipped"]  # type: ignore[assignment]
    assert "pip install 'acclimate[openvino]'" in skipped["openvino float32"]
    assert "does not pass the gate" in skipped["onnx int8"], "half of so small a model is its graph"
    backend = chosen_backend(tuned)
    assert backend is not None and backend.precision == report["chosen"]["precision"]  # type: ignore[index]


def test_serve_takes_the_export_that_was_chosen(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choose(tuned, "onnx", "float32", "exports/onnx-float32")
    service = open_service([str(tuned)], RunConfig())
    assert "run is computed by onnx in float32, as tune has chosen" in capsys.readouterr().err
    live = load(tuned, base=str(tuned.parent / "base"), device="cpu", dtype="float32")
    assert np.abs(query_vectors(service, "run") - live.encode(TEXTS, "query")).max() < 1e-5
    (served,) = service.runs
    assert served.model == "base" and service.registry.pin("run").served.space == live.space
    with pytest.raises(ServiceError, match="is an export, which takes no adapter"):
        service.registry.load("other", "other")
    with pytest.raises(ServiceError, match="no model is called 'other'"):
        service.registry.pin("other")


def test_torch_where_it_was_chosen_or_asked_for(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choose(tuned, "torch", "bfloat16", None)
    assert open_service([str(tuned)], RunConfig()).registry.adaptable().dtype.itemsize == 2
    choose(tuned, "onnx", "float32", "exports/onnx-float32")
    assert isinstance(open_service([str(tuned)], RunConfig(dtype="float32")).registry.base, Encoder)
    assert isinstance(open_service([str(tuned)], RunConfig(), adapter_root=tmp_path).registry.base, Encoder)
    assert "is computed by torch, which --adapter-root needs" in capsys.readouterr().err


@pytest.mark.skipif(why_not_int8() is not None, reason="needs INT8 products")
def test_serve_computes_in_int8_where_that_was_chosen_and_can_be(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(tuned, "torch", "int8", None)
    service = open_service([str(tuned)], RunConfig(), adapter_root=tmp_path)
    assert "run is computed by torch in int8, as tune has chosen" in capsys.readouterr().err
    assert is_int8(service.registry.adaptable().model)
    eight = load(tuned, base=str(tuned.parent / "base"), device="cpu", dtype="int8")
    assert np.abs(query_vectors(service, "run") - eight.encode(TEXTS, "query")).max() < 1e-2
    monkeypatch.setattr(int8_linear, "_flags", lambda: frozenset({"avx2"}))
    assert chosen_backend(tuned) is None  # the run has come to another machine
    assert "neither VNNI nor AMX" in capsys.readouterr().err


def test_a_choice_for_another_model_is_not_taken(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    choose(run, "onnx", "float32", "exports/onnx-float32")
    shutil.rmtree(run / "exports" / "onnx-float32")
    assert chosen_backend(run) is None
    assert "that was chosen for" in capsys.readouterr().err
    choose(run, "torch", "bfloat16", None)
    shutil.rmtree(run / "adapter")
    write_adapter(run / "adapter", tuned.parent / "base", strength=0.5)
    assert chosen_backend(run) is None
    assert "was trained again after its backend was chosen" in capsys.readouterr().err
    (run / "tuned" / "backend.json").write_text('{"engine": "onnx"}')
    with pytest.raises(StorageError, match=r"backend\.json is damaged"):
        chosen_backend(run)


def test_the_command(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the query side adapted there is torch alone."""
    monkeypatch.setattr("acclimate.stages.tune.cores_allowed", lambda: 1)
    run = tmp_path / "run"
    shutil.copytree(tuned / "dataset", run / "dataset")
    shutil.copy(tuned / "config.toml", run / "config.toml")
    write_adapter(run / "adapter", tuned.parent / "base", strength=0.1, sides="query")
    main(["tune", str(run), "--tune-seconds", "0.01", "--sign-flips", "100", "--tune-for", "one"])
    shown = capsys.readouterr().out
    assert "onnx float32 is left out: queries have a model of their own" in shown
    assert "chosen for one: torch" in shown and shown.endswith(f"{run / 'tuned'}\n")
    assert not (run / "exports").exists()
    with pytest.raises(SystemExit, match="2"):
        main(["tune", str(run), "--tune-seconds", "0"])
