"""Tables of texts with topics, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.data.topics import read_topics
from acclimate.errors import DataError


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "text,topic\n锈病,病害\nrye,crops\n"),
        ("t.jsonl", '{"_id": 1, "text": "锈病", "metadata": {"topic": "病害"}}\n{"text": "rye", "topic": "crops"}\n'),
    ],
)
def test_every_form(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_topics(tmp_path / name) == {"锈病": "病害", "rye": "crops"}


def test_a_text_of_two_topics_and_bad_rows_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("text\ttopic\nrust\tills\nrye\tcrops\nrust\tmetal\n\tcrops\noats\t\n", encoding="utf-8")
    assert read_topics(path) == {"rye": "crops"}
    said = capsys.readouterr().err
    assert "2 rows are not used; the first is row 5: empty (text)" in said
    assert "1 text with several topics is not used" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nrust,ills\n", r"t.csv row 2: no column 'topic'; columns found: 'text', 'label'"),
        ("text,topic\nrust,\n", r"no usable row; row 2: empty \(topic\)"),
        ("", "is empty"),
    ],
)
def test_what_is_no_table_of_topics(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_topics(tmp_path / "t.csv")
