"""`prepare` as a stage: an artifact that is kept, made again, or left as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acclimate.configs import PrepareConfig, RunConfig
from acclimate.data.dataset import load_dataset
from acclimate.errors import DataError
from acclimate.files import hash_file, hash_folder
from acclimate.formats.sources import tokenizer_hash
from acclimate.stages.prepare import prepare

ROW = '{"query": "question %d", "response": "the answer to it is %d"}\n'


def source(folder: Path, rows: int = 300) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(ROW % (number, number) for number in range(rows)) + "{broken\n")
    return path


@pytest.mark.real
def test_prepare_writes_keeps_and_makes_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = source(tmp_path), tmp_path / "run" / "dataset"
    report = prepare(str(path), out, RunConfig())
    assert json.loads((out / "report.json").read_text()) == report
    assert report["counts"]["test"] == {"queries": 100, "documents": 100, "pairs": 100}
    assert report["counts"]["rejected"] == {"not JSON": 1} and report["timings"]["prepare_s"] > 0
    inputs = {"pairs.jsonl": hash_file(path), "tokenizer": tokenizer_hash(RunConfig().base_model)}
    assert json.loads((out / "inputs.json").read_text()) == inputs
    lengths = load_dataset(out).info["lengths"]
    # [CLS] question 17 [SEP]: every query has 4 of the model's tokens
    assert lengths["queries"]["tokens"] == {"p50": 4, "p90": 4, "p99": 4, "max": 4}
    assert lengths["documents"]["longer_than_limit"] == {"max_tokens": 256, "share": 0.0}
    said = capsys.readouterr()
    assert said.out == "" and "pairs.jsonl row 301: not JSON" in said.err and "fewer than 10,000" in said.err

    before = hash_folder(out)
    assert prepare(str(path), out, RunConfig()) == report and hash_folder(out) == before
    assert "is kept" in capsys.readouterr().err
    assert prepare(str(path), out, RunConfig(limit=20))["counts"]["train"]["queries"] == 20
    capsys.readouterr()
    prepare(str(path), out, RunConfig())
    assert "is kept" not in capsys.readouterr().err and hash_folder(out) == before
    source(tmp_path, 400)
    assert prepare(str(path), out, RunConfig())["counts"]["queries"] == 400


@pytest.mark.real
def test_short_limit_is_a_warning(tmp_path: Path) -> None:
    report = prepare(str(source(tmp_path)), tmp_path / "dataset", RunConfig(max_tokens=5))
    assert any("100% of the documents are longer than 5 tokens" in warning for warning in report["warnings"])


def test_a_failure_leaves_the_older_artifact(tmp_path: Path) -> None:
    out, path = tmp_path / "dataset", source(tmp_path)
    prepare(str(path), out, RunConfig())
    before = hash_folder(out)
    path.write_text("{broken\n")
    with pytest.raises(DataError, match=r"pairs.jsonl: no usable row; row 1: not JSON"):
        prepare(str(path), out, RunConfig())
    with pytest.raises(DataError, match=r"gone.jsonl: no such file"):
        prepare(str(tmp_path / "gone.jsonl"), out, RunConfig())
    with pytest.raises(DataError, match=r"docs.jsonl: no such file"):
        prepare(str(source(tmp_path)), out, RunConfig(prepare=PrepareConfig(corpus=str(tmp_path / "docs.jsonl"))))
    assert hash_folder(out) == before
