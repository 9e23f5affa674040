"""Lexicon files in every form, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acclimate.configs import DomainConfig
from acclimate.data.lexicon import domain_hashes, read_lexicon
from acclimate.errors import DataError

ENTRIES = {"条锈病": ("小麦的真菌病害",), "crop rotation": ()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.tsv", "term\tdefinition\n条锈病\t小麦的真菌病害\ncrop rotation\t\n"),
        ("l.csv", "Definition,Term\n小麦的真菌病害,条锈病\n,crop rotation\n"),
        ("l.jsonl", '{"term": "条锈病", "definition": "小麦的真菌病害"}\n{"term": " crop  rotation "}\n'),
        ("l.json", '[{"term": "条锈病", "definition": "小麦的真菌病害"}, {"term": "crop rotation"}]'),
    ],
)
def test_every_form(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_lexicon(tmp_path / name) == ENTRIES


def test_one_term_per_line(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("\ufeff条锈病\n\ncrop rotation\nCrop Rotation\nlime, slaked\n", encoding="utf-8")
    assert read_lexicon(path) == {"条锈病": (), "crop rotation": (), "lime, slaked": ()}


def test_senses_of_a_term_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "l.tsv"
    path.write_text("term\tdefinition\nRust\ta fungus\nrust\toxide\nRUST\ta fungus\n", encoding="utf-8")
    assert read_lexicon(path) == {"Rust": ("a fungus", "oxide")}


def test_a_bad_row_costs_that_row_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "l.jsonl"
    rows = [{"term": "锈病"}, {"term": ""}, {"term": 3}, {"term": "x" * 101}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n", encoding="utf-8")
    assert read_lexicon(path) == {"锈病": ()}
    assert "4 rows without a usable term; the first is row 2: empty (term)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "word,definition\nrust,a fungus\n", r"row 2: no column 'term'; columns found: 'word', 'definition'"),
        ("l.txt", "", "l.txt is empty"),
        ("l.txt", "y" * 200, r"no usable row; row 1: a text, not a term \(200 characters"),
        ("l.jsonl", '{"term": null}\n', r"no usable row; row 1: not text \(term: None\)"),
    ],
)
def test_what_is_no_lexicon(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_lexicon(tmp_path / name)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_lexicon(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="no such file"):
        domain_hashes(DomainConfig(lexicon=str(tmp_path / "absent.txt")), ())
