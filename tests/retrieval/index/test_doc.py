"""docs/index.md: its example runs, on the packaged model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOC = Path(__file__).resolve().parents[3] / "docs" / "index.md"


@pytest.mark.real
def test_the_example_finds_what_it_asks_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    code = blocks[0].replace("runs/farm/index", str(tmp_path / "index")).replace("runs/farm", "all-MiniLM-L6-v2")
    exec(compile(code, str(DOC), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["d1", "d0"]
