"""`acclimate merge`: lists of numbers as flags, models as arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acclimate.cli.main import main
from tests.models.adapted import write_model


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(["merge", *arguments])
    return int(stop.value.code or 0), capsys.readouterr().err


def test_models_and_weights_by_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (str(write_model(tmp_path / name, "bert", seed=seed)) for seed, name in enumerate(("a", "b")))
    out = tmp_path / "out"
    main(["merge", first, second, "--out", str(out), "--method", "slerp", "--weights", "0.25,0.75", "--device", "cpu"])
    report = json.loads((out / "report.json").read_text())
    assert [model["weight"] for model in report["models"]] == [0.25, 0.75] and report["method"] == "slerp"
    shown = capsys.readouterr().out
    assert "merged by slerp" in shown and shown.splitlines()[-1] == str(out)


def test_what_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(write_model(tmp_path / "a", "bert")), ("--out", str(tmp_path / "out"))
    capsys.readouterr()
    for arguments, message in (
        ((), "nothing to merge"),
        ((model, model, "--weights", "a,b"), "--weights"),
        ((model, model, "--weights", "1"), "1 weights for 2 models"),
        ((model, model, "--density", "0", "--method", "ties"), "density = 0"),
        ((model, "--method", "slerp"), "slerp of 1 models"),
        ((model, model, "--method", "mean"), "--method"),
        ((model, model, "--method", "greedy-soup"), "--data"),
        ((model, str(tmp_path / "nowhere")), "nowhere"),
    ):
        code, error = fails(capsys, *arguments, *out)
        assert code in (2, 4) and message in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()
