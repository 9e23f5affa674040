"""The step that writes an artifact: kept or made, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from acclimate import processes
from acclimate.files import read_json, write_text
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.versions import promote, rollback, versions

SETTINGS = {"seed": 0, "train": {"rank": 8, "targets": ["query", "key"], "alpha": None}}


def make(
    out: Path,
    settings: Mapping[str, Any] = SETTINGS,
    inputs: Mapping[str, str] | None = None,
    text: str = "one",
    versioned: bool = False,
) -> dict[str, Any]:
    def write(folder: Path) -> dict[str, Any]:
        write_text(folder / "data.txt", text)
        return {"text": text}

    inputs = {"dataset": "hash"} if inputs is None else inputs
    return step("train", out, settings, inputs, lambda: Work(write), seconds="train_s", versioned=versioned)


def test_the_report_has_the_seconds_and_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run" / "adapter"
    report = make(out)
    assert report == {"text": "one", "timings": {"train_s": report["timings"]["train_s"]}}
    assert read_json(out / "report.json") == report
    assert f"train: runs, because {out} is not there yet" in capsys.readouterr().err
    assert make(out, text="never made") == report
    assert f"train: {out} is kept: it is up to date" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "inputs", "why"),
    [
        ({**SETTINGS, "seed": 1}, None, "seed changed (0 -> 1)"),
        (
            {**SETTINGS, "train": {"rank": 16, "targets": ["query"], "alpha": None}},
            {"dataset": "other"},
            'train.rank changed (8 -> 16), train.targets changed (["query", "key"] -> ["query"]) and dataset changed',
        ),
        (
            {**SETTINGS, "train": {**SETTINGS["train"], "alpha": 4.0}},  # type: ignore[dict-item]
            {"dataset": "hash", "negatives": "hash"},
            "train.alpha changed (none -> 4.0) and negatives changed",
        ),
        (
            {"seed": 0, "train": {"rank": 8, "alpha": None}},
            {},
            'targets changed (["query", "key"] -> none) and dataset',
        ),
        ({**SETTINGS, "name": None}, None, "because name changed\n"),
        ({**SETTINGS, "name": "x" * 99}, None, f"name changed (none -> {'x' * 39}…)"),
    ],
)
def test_it_says_why_it_runs_again(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: Mapping[str, Any],
    inputs: Mapping[str, str] | None,
    why: str,
) -> None:
    out = tmp_path / "adapter"
    make(out)
    make(out, settings, inputs, text="two")
    assert "train: runs again, because " in (said := capsys.readouterr().err)
    assert why in said
    assert (out / "data.txt").read_text() == "two"


def test_a_damaged_artifact_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "adapter"
    make(out)
    (out / "settings.json").write_text("{")
    make(out, text="two")
    assert f"runs again, because {out / 'settings.json'} is damaged" in capsys.readouterr().err
    assert (out / "data.txt").read_text() == "two"


def test_a_failure_leaves_the_older_artifact(tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    make(out)
    with pytest.raises(ZeroDivisionError):
        step("train", out, {}, {}, lambda: Work(lambda _: {"text": 1 / 0}), seconds="train_s")
    assert (out / "data.txt").read_text() == "one"


def test_what_was_trained_beside_a_promotion_is_not_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start with the same settings finds the version, also where `RUN/adapter` leads to another one, by choice."""
    run = RunFolder(tmp_path / "run")
    other = {**SETTINGS, "seed": 1}
    make(run.adapter, versioned=True)
    make(run.adapter, other, text="two", versioned=True)
    first = next(version for version in versions(run) if version.set_by is None)
    promote(run, first.name)
    report = make(run.adapter, other, text="never made", versioned=True)
    assert report["text"] == "two"
    assert "by choice" in capsys.readouterr().err
    assert (run.adapter / "data.txt").read_text() == "one"
    rollback(run)
    assert make(run.adapter, other, text="never made", versioned=True)["text"] == "two"
    assert make(run.adapter, text="made again", versioned=True)["text"] == "made again"


@pytest.mark.parametrize("alone", [True, False])
def test_another_process_helps_and_does_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    """The second of two processes: what the first one finds and reports comes to it; `make` is for both, or not."""
    answers: list[Any] = [None, {"text": "of the first", "timings": {}}]
    monkeypatch.setattr(processes, "is_main", lambda: False)
    monkeypatch.setattr(processes, "on_main", lambda _: answers.pop(0))
    done: list[str] = []

    def made() -> Work[dict[str, Any]]:
        done.append("make")
        return Work(lambda _: {"text": "never"}, meanwhile=lambda: done.append("meanwhile"))

    report = step("prepare", tmp_path / "dataset", {}, {}, made, seconds="prepare_s", alone=alone)
    assert report["text"] == "of the first"
    assert done == ([] if alone else ["make", "meanwhile"])
    assert list(tmp_path.iterdir()) == []
