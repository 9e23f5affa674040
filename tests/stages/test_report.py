"""The stage: one file, written whole, nothing else touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.errors import DataError, StorageError
from acclimate.files import hash_file
from acclimate.report.folder import read_run
from acclimate.report.html import render
from acclimate.stages.report import report
from tests.report.sample_run import write_sample_run


def hashes(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): hash_file(path) for path in run.rglob("*") if path.is_file()}


def test_it_writes_the_page_and_nothing_else(tmp_path: Path) -> None:
    run = write_sample_run(tmp_path / "farm")
    before = hashes(run)
    page = report(run)
    assert page == run / "report.html"
    assert page.read_text(encoding="utf-8") == render(read_run(run))
    after = hashes(run)
    assert after.pop("report.html") and after == before


def test_a_damaged_run_leaves_the_older_page(tmp_path: Path) -> None:
    run = write_sample_run(tmp_path / "farm")
    (run / "report.html").write_text("older", encoding="utf-8")
    (run / "report.json").write_text("[]", encoding="utf-8")
    with pytest.raises(StorageError, match="holds no JSON object"):
        report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == "older"


def test_no_run_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run folder"):
        report(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
