"""A model that is not the default, step by step: each stage is told of it once, the base comes from the adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from acclimate.cli.main import main
from acclimate.configs import DEFAULT_MODEL, RunConfig, dump_config
from acclimate.stages.evaluate import evaluate_model
from tests.e2e.test_bad_input import QUICK, pairs, write_rows
from tests.models.tiny import as_sentence_transformer, tiny_bert

PREPARE, TRAIN, EVALUATE = QUICK[:2], (*QUICK[2:6], *QUICK[8:]), QUICK[6:8]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_sentence_transformer(tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    data = write_rows(folder / "pairs.jsonl", pairs())
    main(["prepare", str(data), "--out", str(folder / "run"), "--model", str(model), *PREPARE])
    main(["train", str(folder / "run"), "--model", str(model), "--epochs", "1", *TRAIN])
    return folder / "run"


@pytest.mark.slow
def test_the_base_comes_from_the_adapter(run: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", str(run), *EVALUATE])
    report = json.loads((run / "evaluation" / "report.json").read_text())
    alone = evaluate_model(str(run), None, RunConfig(model=str(model)))
    assert {name: alone[name] for name in report["test"]["base"]} == pytest.approx(report["test"]["base"])
    main(["search", str(run), "when to sow wheat in week 3", "--top", "1"])
    main(["similarity", str(run), "sow wheat", "sow rice", "--json"])
    capsys.readouterr()
    main(["evaluate", str(run), "--model", str(model), *EVALUATE])  # the base by name: still base against adapted
    assert "adapted" in capsys.readouterr().out


@pytest.mark.slow
def test_another_model_is_measured_alone_and_that_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = as_sentence_transformer(tiny_bert(tmp_path / "other-bert", seed=3))
    before = (run / "evaluation" / "report.json").read_bytes() if (run / "evaluation").is_dir() else b""
    main(["evaluate", str(run), "--model", str(other), *EVALUATE])
    assert "other-bert is not the base of" in capsys.readouterr().err
    assert ((run / "evaluation" / "report.json").read_bytes() if before else b"") == before


@pytest.mark.slow
def test_the_adapter_s_base_counts_where_the_run_s_settings_name_another(
    run: Path, model: Path, tmp_path: Path
) -> None:
    """As after `prepare --model A` and `train --model B`: what was written down first is not the adapter's base."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy, symlinks=True)
    shutil.rmtree(copy / "evaluation", ignore_errors=True)
    for named in (DEFAULT_MODEL, str(tmp_path / "moved-away")):
        (copy / "config.toml").write_text(dump_config(RunConfig(model=named)))
        main(["evaluate", str(copy), *EVALUATE])
        settings = json.loads((copy / "evaluation" / "settings.json").read_text())
        assert settings["model"] == str(model)
        main(["search", str(copy), "when to sow wheat in week 3", "--top", "1"])
        main(["similarity", str(copy), "sow wheat", "sow rice"])
        main(["evaluate", str(copy), "--adapter", str(run), "--json"])
    main(["merge", str(copy), "--out", str(tmp_path / "merged")])
    assert "made for" not in (tmp_path / "merged" / "README.md").read_text()
