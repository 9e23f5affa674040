"""Metadata by columns: a filter over a million rows becomes one truth value per row in a few milliseconds.

Every different value of a field has a code, and a condition is decided once per different value, by `filters.holds`;
the rows then look theirs up. Shapes: R rows by their numbers, V different values of a field.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from acclimate.core.filters import (
    And,
    Condition,
    Eq,
    Exists,
    Filter,
    In,
    Metadata,
    Not,
    Or,
    Range,
    Scalar,
    Value,
    holds,
    kind,
)

Mask = NDArray[np.bool_]

CACHED_CONDITIONS = 64
"""Conditions of a field whose decisions are kept."""
EXACT = 2**53
"""float64 holds every whole number up to here."""


class Column:
    """One field: the code of every row's value, 0 where the row lacks the field."""

    def __init__(self, rows: int) -> None:
        """Make the column of a field that no row has yet."""
        self.code_R = np.zeros(rows, np.int32)
        self.values: list[Value | None] = [None]
        self.numbers: list[float] = [np.nan]
        self._codes: dict[object, int] = {}
        self._several: list[int] = []
        """The codes of lists of values."""
        self._decided: dict[str, Mask] = {}

    def code(self, value: Value) -> int:
        """The code of a value, a new one if need be."""
        key = tuple(map(_key, value)) if isinstance(value, tuple) else _key(value)
        code = self._codes.setdefault(key, len(self.values))
        if code == len(self.values):
            self.values.append(value)
            if isinstance(value, tuple):
                self._several.append(code)
            plain = not isinstance(value, tuple | str | bool) and abs(value) <= EXACT
            self.numbers.append(float(value) if plain else np.nan)  # type: ignore[arg-type]
        return code

    def mask(self, condition: Condition) -> Mask:
        """Which rows satisfy a condition. [R]."""
        return self._decisions(condition)[self.code_R]

    def _decisions(self, condition: Condition) -> Mask:
        """Which values satisfy it [V]; those decided earlier are kept."""
        # By its text: as keys, Eq("n", 1) and Eq("n", True) would be the same.
        known = self._decided.pop(repr(condition), np.zeros(0, bool))
        start = len(known)
        new = np.zeros(len(self.values) - start, bool)
        match condition:
            case Eq() | In():
                wanted = (condition.value,) if isinstance(condition, Eq) else condition.values
                codes = np.array([self._codes.get(_key(value), 0) for value in wanted])
                new[codes[codes >= max(start, 1)] - start] = True
                undecided = [place - start for place in self._several if place >= start]
            case Range():
                numbers = np.array(self.numbers[start:])
                new = _between(numbers, condition)
                undecided = list(np.flatnonzero(np.isnan(numbers)))
            case Exists():
                undecided = list(range(len(new)))
        for place in undecided:
            new[place] = holds(condition, self.values[start + place])
        self._decided[repr(condition)] = decided = np.concatenate([known, new])
        if len(self._decided) > CACHED_CONDITIONS:
            del self._decided[next(iter(self._decided))]
        return decided


class Columns:
    """The metadata of all rows, and which rows there are."""

    def __init__(self) -> None:
        """Make it empty."""
        self.there_R: Mask = np.zeros(1024, bool)
        self.columns: dict[str, Column] = {}

    def set(self, row: int, metadata: Metadata | None) -> None:
        """Put a row's metadata in place of what it had; None removes the row."""
        if row >= len(self.there_R):
            self._grow(max(row + 1, 2 * len(self.there_R)))
        self.there_R[row] = metadata is not None
        for name, column in self.columns.items():
            if not metadata or name not in metadata:
                column.code_R[row] = 0
        for name, value in (metadata or {}).items():
            if name not in self.columns:
                self.columns[name] = Column(len(self.there_R))
            column = self.columns[name]
            column.code_R[row] = column.code(value)

    def mask(self, filter: Filter) -> Mask:
        """Which of the rows that are there pass the filter. [R], at least as long as the largest row's number + 1."""
        return self._mask(filter) & self.there_R

    def _mask(self, filter: Filter) -> Mask:
        match filter:
            case And(parts):
                return np.asarray(np.logical_and.reduce([self._mask(part) for part in parts]))
            case Or(parts):
                return np.asarray(np.logical_or.reduce([self._mask(part) for part in parts]))
            case Not(part):
                return ~self._mask(part)
            case _:
                column = self.columns.get(filter.field)
                return np.zeros(len(self.there_R), bool) if column is None else column.mask(filter)

    def _grow(self, rows: int) -> None:
        self.there_R = np.concatenate([self.there_R, np.zeros(rows - len(self.there_R), bool)])
        for column in self.columns.values():
            column.code_R = np.concatenate([column.code_R, np.zeros(rows - len(column.code_R), np.int32)])


def _key(value: Scalar) -> tuple[str, Scalar]:
    """Equal for values that are the same: 1 and 1.0, but not 1 and True."""
    return kind(value), value


def _between(numbers: NDArray[np.float64], bounds: Range) -> Mask:
    given = [bound for bound in (bounds.gt, bounds.gte, bounds.lt, bounds.lte) if bound is not None]
    if any(isinstance(bound, str) for bound in given):
        return np.zeros(len(numbers), bool)
    gt, gte, lt, lte = bounds.gt, bounds.gte, bounds.lt, bounds.lte
    found = ~np.isnan(numbers)
    for bound, compare in ((gt, np.greater), (gte, np.greater_equal), (lt, np.less), (lte, np.less_equal)):
        if bound is not None:
            found &= compare(numbers, bound)
    return found
