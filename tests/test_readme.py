"""The README is true: its blocks run, from top to bottom, in one folder, on small data with the packaged model.

A block that cannot run is marked `<!-- not run: reason -->` on the line above it.
"""

from __future__ import annotations

import json
import re
import shlex
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from acclimate.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?:^<!-- (?P<skip>not run: [^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)

GRAINS = ("wheat", "barley", "oats", "rye", "maize", "rice", "millet", "hops")
VEGETABLES = ("beans", "peas", "lentils", "potatoes", "beets", "onions", "carrots", "tomatoes")
CROPS = (*GRAINS, *VEGETABLES)
TASKS = {
    "sow": ("when do I sow {}", "{} go into the ground once the soil has warmed, in rows a hand apart."),
    "water": ("how much water do {} need", "Give {} a deep soak every week rather than a sprinkle each day."),
    "feed": ("which fertiliser suits {}", "{} take up compost in autumn and a little nitrogen in spring."),
    "weed": ("keeping weeds out of {}", "Hoe between the rows of {} on a dry morning while the weeds are small."),
    "blight": ("spots on the leaves of {}", "A fungus of wet summers: remove the sick leaves of {} and air the rows."),
    "pests": ("insects are eating my {}", "Nets over {} keep beetles and caterpillars away until the harvest."),
    "harvest": ("how do I know that {} are ripe", "Harvest {} when they come off easily and the stems turn dry."),
    "store": ("how long do {} keep in a cellar", "Cool, dark and dry, {} last until the next spring."),
    "rotate": ("what grows well after {}", "After {} plant another family, so that diseases of the soil die out."),
    "seed": ("can I save the seed of my own {}", "Let a few of the best {} stand, dry the seed and keep it in paper."),
    "frost": ("do {} survive a late frost", "A fleece over {} holds two degrees, enough for a clear night in May."),
    "space": ("how far apart do {} stand", "Thin {} to a hand's width, so that light reaches the lower leaves."),
    "soil": ("the best soil for {}", "Loose, deep and not too sour: lime heavy land before {} come."),
    "pots": ("growing {} on a balcony", "In a pot of ten litres {} want water twice a day in a hot July."),
    "sell": ("what price do {} fetch", "On the market {} bring the most in the first two weeks of the season."),
}


class Block(NamedTuple):
    """A fenced block of code."""

    language: str
    code: str
    skip: str

    def __str__(self) -> str:
        return f"{self.language}: {self.code.splitlines()[0]}"


def blocks(name: str) -> list[Block]:
    """The fenced blocks of a document that has a language, in order."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [Block(found["language"], found["code"], found["skip"] or "") for found in BLOCK.finditer(text)]


def write_data(folder: Path) -> None:
    """What the README assumes to be there: pairs.jsonl and texts.txt."""
    pairs = [
        {"query": question.format(crop), "response": answer.format(crop).capitalize()}
        for crop, (question, answer) in product(CROPS, TASKS.values())
    ]
    lines = [json.dumps(pair) + "\n" for pair in pairs]
    (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "texts.txt").write_text("".join(pair["response"] + "\n" for pair in pairs[:20]), encoding="utf-8")


def test_the_readme_installs_the_torch_that_is_tested() -> None:
    """Without a version, pip would take PyTorch's newest from its CPU index, and then another from the constraints."""
    (pinned,) = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.findall(r"^pip install torch(\S*)", text, re.M) == [f"=={pinned}"] * 2


def run_shell(code: str) -> None:
    """Each command of a block, by the command line's own entry but in this process: ten starts would take a minute."""
    for line in code.replace("\\\n", " ").splitlines():
        if not (words := shlex.split(line, comments=True)):
            continue
        command, *arguments = words
        assert command == "acclimate", f"only acclimate's own commands can be tested; mark the block: {line}"
        try:
            main(arguments)
        except SystemExit as stop:
            assert not stop.code, f"{line}: exit code {stop.code}"


@pytest.mark.real
@pytest.mark.slow
def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    for block in blocks("README.md"):
        if block.skip:
            continue
        if block.language == "bash":
            run_shell(block.code)
        elif block.language == "python":
            exec(compile(block.code, f"README.md, {block}", "exec"), {"__name__": "readme"})
        elif block.language == "json":
            json.loads(block.code)
    output = capsys.readouterr().out
    assert "verdict" in output
    reports = [f"runs/{name}" for name in ("farm/report.html", "steps/report.html", "python/report.json")]
    for left in (*reports, "texts.npy", "farm-model/modules.json"):
        assert (tmp_path / left).exists(), left


def test_python_needs_nothing_below_the_public_face() -> None:
    found = [block.code for block in blocks("README.md") if block.language == "python"]
    imported = re.findall(r"^(?:from|import) (acclimate[\w.]*)", "\n".join(found), re.M)
    assert imported and set(imported) == {"acclimate"}


def test_most_blocks_are_run() -> None:
    found = blocks("README.md")
    assert len(found) >= 8
    assert sum(bool(block.skip) for block in found) <= 3


def test_both_languages_show_the_same_code() -> None:
    """The Chinese README may not drift: the same blocks in the same order."""
    assert blocks("README.zh-CN.md") == blocks("README.md")


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "examples/agriculture/README.zh-CN.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_every_command_is_in_the_table() -> None:
    """And every command of the table exists."""
    from acclimate.cli.main import COMMANDS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `acclimate ([\w-]+)", text, re.M)) == set(COMMANDS)
