"""`vectors`: the forms of a run's stored vectors, in its folder, on the terminal and on its page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from acclimate.cli.main import main
from acclimate.configs import VectorsConfig
from acclimate.errors import StorageError, UsageError
from acclimate.stages.report import report
from acclimate.stages.vectors import vectors
from tests.stages.worlds import config_for, tiny_embedder, write_adapter, write_pairs, write_retrieval


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    base = tiny_embedder(folder / "base")
    write_retrieval(folder / "run")
    write_adapter(folder / "run" / "adapter", base, strength=0.1)
    return folder / "run"


def test_every_form_is_compared_with_float32(run: Path) -> None:
    config = config_for(run.parent / "base")
    found = vectors(run, config)
    first, *others = found["rows"]
    assert (first["form"], first["dim"], first["bytes"], first["recall@10"]) == ("float32", 32, 128, 1.0)
    assert first["delta"]["value"] == 0
    assert [row["dim"] for row in found["rows"]] == [32] * 5 + [16] * 4 + [8] * 4
    for row in others:
        assert row["delta"]["value"] == pytest.approx(row["ndcg@10"] - first["ndcg@10"])
        assert row["bytes"] < 128 and 0 <= row["recall@10"] <= 1 and row["ms"] > 0
    assert found["queries"] == 12 and found["documents"] == 40
    assert vectors(run, config)["timings"] == found["timings"], "kept"
    again = vectors(run, dataclasses.replace(config, vectors=VectorsConfig(cut_dims=(4,))))
    assert [row["dim"] for row in again["rows"]] == [32] * 5 + [4] * 4


def test_the_command_and_the_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["vectors", str(run), "--model", str(run.parent / "base"), "--sign-flips", "100"])
    shown = capsys.readouterr().out
    assert "binary, int8" in shown and shown.endswith(f"{run / 'vectors'}\n")
    report(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<caption>Stored vectors</caption>" in page and "NDCG@10 by bytes of a stored vector" in page
    assert json.loads((run / "report.json").read_text())["made"]["vectors"]["command"].startswith("acclimate vectors")


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    config = config_for(run.parent / "base")
    with pytest.raises(UsageError, match="cut_dims = 33, and the model's vectors have 32"):
        vectors(run, dataclasses.replace(config, vectors=VectorsConfig(cut_dims=(33,))))
    with pytest.raises(StorageError, match="holds no dataset"):
        vectors(tmp_path, config)
    write_pairs(tmp_path / "pairs")
    with pytest.raises(UsageError, match="holds labelled pairs"):
        vectors(tmp_path / "pairs", config)
    with pytest.raises(UsageError, match="oversampling = 0"):
        VectorsConfig(oversampling=0)
