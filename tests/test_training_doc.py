"""docs/training.md: every setting that it names exists, with the value that it gives, and no loss is left out."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from acclimate.configs import DatasetConfig, RunConfig

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
TABLES, PROSE = TEXT.partition("## Coming from ms-swift")[2], TEXT.partition("## Coming from ms-swift")[0]
COMMAND = re.compile(r"(acclimate|RUN/|\[\[)")


def fields(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Name and type of every setting, those of the sections included."""
    for name, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from fields(hint)
        else:
            yield name, hint


SETTINGS = dict(fields(DatasetConfig)) | dict(fields(RunConfig))


def possible(hint: Any) -> tuple[str, ...]:
    """The values of a Literal, also inside a tuple or an optional."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(value for inner in get_args(hint) for value in possible(inner))


def rows(text: str) -> list[list[str]]:
    """Cells of the tables' rows, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [row for row in cells if not row[0].startswith("---") and row[1] != "Here"]


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_our_column_names_settings_and_their_values() -> None:
    found = [span for row in rows(TABLES) for span in spans(row[1])]
    assert len(found) > 100
    for span in found:
        name, _, value = span.partition(" = ")
        assert name in SETTINGS, f"{span}: no such setting"
        for word in value.split(",") if value else ():
            assert word in possible(SETTINGS[name]), f"{span}: possible is {possible(SETTINGS[name])}"


def test_a_row_says_what_it_is_called_or_why_it_is_not() -> None:
    for row in rows(TABLES):
        assert spans(row[1]) or (row[1] == "—" and len(row) == 3 and row[2]), row


def test_settings_that_the_text_speaks_of_exist() -> None:
    """Above the tables a span in code is a setting, a value of one, a command, or a path."""
    values = {value for hint in SETTINGS.values() for value in possible(hint) if isinstance(value, str)}
    for span in spans(PROSE):
        name = span.partition(" = ")[0]
        known = name in SETTINGS or span in values or COMMAND.match(span) or span in ("train", "adapt", "mine", "code")
        assert known or span == "--temperature", span


def test_every_loss_of_sentence_transformers_is_in_the_table() -> None:
    spec = find_spec("sentence_transformers")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent / "sentence_transformer" / "losses" / "__init__.py"
    exported = next(
        ast.literal_eval(node.value)
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    named = {span for row in rows(TABLES) for span in spans(row[0])}
    assert set(exported) - named == set()
