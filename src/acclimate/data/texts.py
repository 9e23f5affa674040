"""Files of texts by themselves: a text file, a line each, or any table with a column of texts."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.columns import passage_text
from acclimate.data.kinds import kind_of
from acclimate.data.names import TEXTS
from acclimate.data.opening import read_lines
from acclimate.data.records import BadRowError, normalise
from acclimate.data.tables import Row, is_plain, notes_of, read_table
from acclimate.errors import DataError, UsageError
from acclimate.progress import say
from acclimate.types import Rejected


def typed_text(text: str) -> str:
    """Take a text that is given by hand as the texts of a file are taken.

    Raises:
        UsageError: it is no Unicode text, or longer than a text of a file may be.
    """
    try:
        return normalise(text)
    except BadRowError as error:
        raise UsageError(f"the text that is given: {error}", fix="Correct it.") from None


def read_texts(source: Path) -> list[str]:
    """Read the texts of any table, its title before each where there is one, or the lines of a text file (an empty line
    is an empty text, so rows keep their places).

    Raises:
        DataError: missing, empty, of no known form, or a row without a text: rows of the result would not be those of
            the file.
    """
    for note in notes_of(source):
        say(note)
    if is_plain(source):
        return [_line(source, *line) for line in read_lines(source)]
    return [_text(source, row) for row in read_table(source, source.name)]


def _line(source: Path, row: int, text: str, error: str) -> str:
    if error:
        raise DataError(f"{source}, row {row}: {error}", fix="Correct the line, or save the file as UTF-8.")
    return _usable(source, row, text)


def _text(source: Path, row: Row | Rejected) -> str:
    if isinstance(row, Rejected):
        raise DataError(f"{source}, row {row.row}: {row.reason}", possible="a field " + ", ".join(TEXTS))
    try:
        text = passage_text(row.values)
    except BadRowError as error:
        raise DataError(f"{source}, row {row.row}: {error}") from None
    if text is None:
        fields = ", ".join(str(name)[:60] for name in list(row.values)[:30]) or "none"
        raise DataError(
            f"{source}, row {row.row}: has the fields {fields}",
            possible="a field " + ", ".join(TEXTS),
            fix="Name the texts so."
            if kind_of(source) != "delimited"
            else "Name the column of the texts so, in the first line.",
        )
    return text


def _usable(source: Path, row: int, text: str) -> str:
    try:
        return normalise(text)
    except BadRowError as error:
        raise DataError(f"{source}, row {row}: {error}") from None
