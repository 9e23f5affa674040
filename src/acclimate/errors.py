"""The one error tree. Every failure a user can cause is one of these, and each says three things.

AcclimateError                      exit 1
├── UsageError                      exit 2   an option, or a combination of options
├── DataError                       exit 3   a file, a row, a column
├── ModelError                      exit 4   a model, an adapter, a tokenizer
├── StorageError                    exit 5   no space, no permission, a damaged artifact
├── MissingExtraError               exit 6   an optional package that is not installed
└── Interrupted                     exit 130 ctrl-C, after the work in progress was put aside
"""

from __future__ import annotations

from typing import ClassVar


class AcclimateError(Exception):
    """What was found, what is possible, what to do: rendered as one line.

    Args:
        found: what was found, naming the file and the row where there is one.
        possible: what would have been accepted (empty when the fix says it all).
        fix: what the user can do now.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, found: str, *, possible: str = "", fix: str = "") -> None:
        self.found = found
        self.possible = possible
        self.fix = fix
        parts = [found, f"Possible: {possible}" if possible else "", fix]
        super().__init__(" ".join(_sentence(part) for part in parts if part))


class UsageError(AcclimateError):
    """An option, or a combination of options, that cannot be."""

    exit_code = 2


class DataError(AcclimateError):
    """A file, a row or a column that cannot be used."""

    exit_code = 3


class ModelError(AcclimateError):
    """A model, an adapter or a tokenizer that cannot be used, or not like this."""

    exit_code = 4


class StorageError(AcclimateError):
    """No space, no permission, or an artifact that is damaged."""

    exit_code = 5


class MissingExtraError(AcclimateError):
    """A feature whose optional package is not installed."""

    exit_code = 6

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the optional package(s) of the extra [{extra}], which are not installed",
            fix=f"pip install 'acclimate[{extra}]'",
        )


class Interrupted(AcclimateError):
    """Ctrl-C: what is on disk is whole, and a second start goes on from there."""

    exit_code = 130


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "?", "!", ":")) else text + "."


def first_line(error: Exception) -> str:
    """The first line of another library's message, which may go on with a stack; the error's name where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
