"""CSV and TSV -> lists of fields, line by line, so that a broken line costs that line and not the file.

TSV in the wild is either raw, where a quote is a letter, or written by a CSV writer (pandas), which puts quotes around
what holds a tab, a line end or a quote. Nothing in the file says which; the number of columns does.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from acclimate.data.kinds import DELIMITERS
from acclimate.data.opening import extension, read_lines
from acclimate.files import MAX_LINE_BYTES
from acclimate.types import Rejected

Fields: TypeAlias = Iterator[tuple[int, list[str]] | Rejected]
"""(1-based row of the first line, fields), or a line that has none, and why."""
_Line: TypeAlias = tuple[int, str, str]

POSSIBLE = "\t,;|"
EXCEL = "sep="
"""Excel writes the delimiter into a line before the header."""


def fields_of(path: Path, source: str) -> Fields:
    """Read the fields of every line that is not blank.

    Args:
        path: the file.
        source: the name under which broken lines report where they come from.
    """
    first = next((text for _, text, error in read_lines(path) if not error and text.strip()), "")
    skip = first if first.startswith(EXCEL) and len(first) == len(EXCEL) + 1 else None
    delimiter = _delimiter(first, extension(path)) if skip is None else skip[-1]
    if delimiter == "\t" and not _is_quoted(path, first):
        return _raw(path, source)
    return _quoted(path, source, delimiter, skip)


def _delimiter(first: str, ending: str) -> str:
    """The extension's delimiter if the first line has it, else the commonest one there."""
    preferred = DELIMITERS.get(ending, "\t")
    if preferred in first:
        return preferred
    commonest = max(POSSIBLE, key=first.count)
    return commonest if commonest in first else preferred


def _is_quoted(path: Path, first: str) -> bool:
    """Whether a TSV file was written by a CSV writer: read so, fewer of its lines have another number of columns than
    the first."""
    if first.startswith('"'):
        return True
    columns = first.count("\t") + 1
    wrong = quoted = 0
    for _, text, error in read_lines(path):
        if not error and text.strip():
            wrong += text.count("\t") + 1 != columns
            quoted += text.startswith('"') or '\t"' in text
    if not quoted or (columns > 1 and not wrong):
        return False
    read = list(_widths(path))
    broken = sum(width != columns for width in read)
    return broken < wrong or (columns == 1 and not broken)


def _widths(path: Path) -> Iterator[int]:
    """How many fields each row has, read as quoted; 0 for one that cannot be."""
    for row in _quoted(path, "", "\t", None):
        if not isinstance(row, Rejected):
            yield len(row[1])
        elif row.reason.startswith("not CSV"):
            yield 0


def _raw(path: Path, source: str) -> Fields:
    for row, text, error in read_lines(path):
        if error:
            yield Rejected(source, row, error, "")
        elif text.strip():
            yield row, [_unquote(field) for field in text.split("\t")]


def _unquote(field: str) -> str:
    """Undo a CSV writer's quoting of a field without a tab: it quotes only what holds a quote, and doubles that."""
    if len(field) > 4 and field[0] == field[-1] == '"' and '""' in (inner := field[1:-1]):
        plain = inner.replace('""', "")
        if '"' not in plain:
            return inner.replace('""', '"')
    return field


def _quoted(path: Path, source: str, delimiter: str, skip: str | None) -> Fields:
    """Fields by the rules of CSV. A quote that is never closed costs its own line: the lines behind it, over which the
    field would go on, are read anew."""
    unread = read_lines(path)
    again: deque[_Line] = deque()
    csv.field_size_limit(MAX_LINE_BYTES)

    def lines() -> Iterator[_Line]:
        while True:
            line = again.popleft() if again else next(unread, None)
            if line is None:
                return
            yield line

    for row, text, error in lines():
        if error:
            yield Rejected(source, row, error, "")
        elif skip is not None and text == skip:
            skip = None
        elif '"' not in text:
            if text.replace(delimiter, "").strip():
                yield row, text.split(delimiter)
        else:
            taken: list[_Line] = []
            try:
                values = next(csv.reader(_fed((row, text, error), lines(), taken), delimiter=delimiter, strict=True))
            except csv.Error as problem:
                again.extendleft(reversed(taken))
                yield Rejected(source, row, f"not CSV ({problem})", text[:200])
            else:
                yield from (Rejected(source, number, broken, "") for number, _, broken in taken if broken)
                if any(value.strip() for value in values):
                    yield row, values


def _fed(first: _Line, lines: Iterator[_Line], taken: list[_Line]) -> Iterator[str]:
    """A line, and as many more as a quoted field needs; these are noted in `taken`."""
    yield first[1] + "\n"
    for line in lines:
        taken.append(line)
        if not line[2]:
            yield line[1] + "\n"
