"""The commands about an index, from the command line: what they print, and what excludes what."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import acclimate
from acclimate.cli.main import main
from acclimate.configs import RunConfig, dump_config
from acclimate.files import read_json
from tests.tiny_run import write_tiny_bert, write_tiny_retrieval


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny model, indexed."""
    folder = tmp_path_factory.mktemp("indexed")
    config = RunConfig(model=str(write_tiny_bert(folder / "model")), pooling="mean", device="cpu", dtype="float32")
    write_tiny_retrieval(folder / "run" / "dataset")
    config = replace(config, evaluate=replace(config.evaluate, sign_flips=100))
    (folder / "run" / "config.toml").write_text(dump_config(config))
    main(["index", str(folder / "run")])
    return folder / "run"


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in arguments])
    assert ended.value.code not in (0, None)
    error = capsys.readouterr().err
    assert error.startswith("acclimate: ") and error.count("\n") == 1, error
    return error


def test_what_they_print(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["index", str(run)])
    assert "40 documents; 40 read, 40 unchanged" in capsys.readouterr().out
    main(["index", str(run), "--info"])
    assert "local" in capsys.readouterr().out
    main(["index", str(run), "--verify"])
    assert "40 documents, no damage found" in capsys.readouterr().out
    main(["index", str(run), "--export", str(tmp_path / "out.jsonl")])
    assert f"written to {tmp_path}/out.jsonl" in capsys.readouterr().out
    main(["search", str(run), "w1", "--json", "--top", "2"])
    found = json.loads(capsys.readouterr().out)
    assert found["mode"] == "hybrid" and len(found["hits"]) == 2
    main(["search", str(run), "w1", "--filter", "year = 1"])
    assert "no document found" in capsys.readouterr().out


def test_the_runs_report_gets_the_measures_and_keeps_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", str(run), "--index"])
    assert "hybrid - dense" in capsys.readouterr().out
    report = read_json(run / "report.json")
    assert set(report["index"]["modes"]) == {"dense", "lexical", "hybrid"}
    assert report["made"]["index_evaluation"]["command"] == f"acclimate evaluate {run} --index"
    main(["evaluate", str(run), "--index", "--json"])
    assert json.loads(capsys.readouterr().out)["modes"] == report["index"]["modes"]
    main(["index", str(run)])  # another stage, which writes the report too
    assert read_json(run / "report.json")["index"]["modes"] == report["index"]["modes"]


def test_in_python(run: Path) -> None:
    assert acclimate.index(run)["unchanged"] == 40
    assert len(acclimate.search(run, "w1", mode="lexical", top=1)["hits"]) == 1
    assert acclimate.evaluate_index(run, sign_flips=100).folder == run / "index_evaluation"


def test_what_excludes_what(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "exclude each other" in fails(capsys, "index", run, "--info", "--verify")
    assert "about the index as it is" in fails(capsys, "index", run, tmp_path, "--rebuild")
    assert "does not read index_at" in fails(capsys, "evaluate", run, "--at", tmp_path)
    assert "does not read" in fails(capsys, "index", run, "--export", tmp_path / "x", "--dim", "8")
    assert "without --rerank does not read" in fails(capsys, "search", run, "w1", "--pair-tokens", "9")
    assert "compare is a search without" in fails(capsys, "search", run, "w1", "--compare", "--mode", "dense")
    assert "holds no adapter" in fails(capsys, "search", run, "w1", "--compare")
    assert "exclude each other" in fails(capsys, "evaluate", run, "--index", "--adapter", run)
    assert "there is no index" in fails(capsys, "search", run, "w1", "--at", tmp_path / "nothing")
