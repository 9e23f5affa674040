"""Run files: six columns whatever the ids look like."""

from __future__ import annotations

from pathlib import Path

from acclimate.engine.trec import write_trec


def test_six_columns(tmp_path: Path) -> None:
    run = {"q 1": {"d\u00a01": 0.123456789012, "d2": -0.5, "d3": -0.75}, "none": {}}
    write_trec(tmp_path / "run.trec", run, "base", 2)
    lines = (tmp_path / "run.trec").read_text(encoding="utf-8").splitlines()
    assert lines == ["q%201 Q0 d%C2%A01 1 0.123456789 base", "q%201 Q0 d2 2 -0.5 base"]
