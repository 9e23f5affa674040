"""Run files: six columns whatever the ids look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.errors import DataError
from acclimate.retrieval.trec import read_trec, write_trec


def test_six_columns(tmp_path: Path) -> None:
    run = {"q 1": {"d\u00a01": 0.123456789012, "d2": -0.5, "d3": -0.75}, "none": {}}
    write_trec(tmp_path / "run.trec", run, "base", 2)
    lines = (tmp_path / "run.trec").read_text(encoding="utf-8").splitlines()
    assert lines == ["q%201 Q0 d%C2%A01 1 0.123456789 base", "q%201 Q0 d2 2 -0.5 base"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run = {"q 1": {"d\u00a01": 0.5, "d2": -0.5, "d3": -0.5}, "q2": {"d2": 1.0}}
    write_trec(tmp_path / "run.trec", run, "base", 10)
    assert read_trec(tmp_path / "run.trec", run, ["d2", "d3", "d\u00a01"]) == run


def test_what_is_no_run_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    for line, said in (("q Q0 d 1", "line 1"), ("q Q0 d 1 high tag", "line 1"), ("q Q0 x 1 0.5 tag", "id 'x'")):
        path.write_text(line + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=said):
            read_trec(path, ["q"], ["d"])
