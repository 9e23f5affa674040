"""RunFolder: every path of a run, in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from acclimate.files import work_folder
from acclimate.runs.run_folder import RunFolder

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "acclimate"
RUN = RunFolder(Path("runs/farm"))
OWNERS = {"runs/run_folder.py", "files.py"}
"""Where the names of a run's parts are spelled; `files` has those of any artifact: report, work in progress."""


def own_names() -> set[str]:
    """The last part of every path that a `RunFolder` has."""
    properties = [name for name, value in vars(RunFolder).items() if isinstance(value, property)]
    return {getattr(RUN, name).name for name in properties} | {"stages"}


def test_every_part_of_a_run_lies_in_it() -> None:
    assert {"adapter", "adapters", "dataset", "metrics.jsonl", "report.html", ".work", "cache"} <= own_names()
    assert RUN.adapter == Path("runs/farm/adapter")
    assert RUN.task("faq").negatives == Path("runs/farm/tasks/faq/negatives")
    assert RUN.stage("1-pretrain").adapter == Path("runs/farm/stages/1-pretrain/adapter")
    assert work_folder(RUN.adapter).parent == RUN.work


def test_the_stages_of_a_run_share_its_cache() -> None:
    assert RUN.stage("1-pretrain").cache == RUN.cache == Path("runs/farm/.work/cache")
    assert RUN.task("faq").cache == Path("runs/farm/tasks/faq/.work/cache")


@pytest.mark.parametrize("part", ["dataset", "adapter", "adapters/0123456789abcdef"])
def test_a_part_knows_its_run(part: str) -> None:
    assert RunFolder.around(RUN.path / part) == RUN


def may_spell(path: Path) -> bool:
    """Whether a file is not looked at: `data` knows the layout of a dataset's folder, which has names like a run's."""
    return path.relative_to(PACKAGE).as_posix() in OWNERS or path.relative_to(PACKAGE).parts[0] == "data"


def spelled(tree: ast.Module) -> list[int]:
    """Lines on which a path is put together from a name of a run's part, or such a name is kept as a constant."""
    names, lines = own_names(), []
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(op=ast.Div(), right=ast.Constant(value=str() as name), lineno=line) if name in names:
                lines.append(line)
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Constant(value=str() as name), lineno=line):
                if target.isupper() and not target.endswith("KIND") and name in names:
                    lines.append(line)
    return sorted(lines)


def test_nobody_else_spells_the_paths_of_a_run() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}, line {line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not may_spell(path)
        for line in spelled(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_a_path_that_is_spelled_is_seen() -> None:
    assert spelled(ast.parse('a = run / "adapter"\nMETRICS = "metrics.jsonl"\nb = "adapter"\n')) == [1, 2]
