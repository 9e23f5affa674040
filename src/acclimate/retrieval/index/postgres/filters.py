"""Filters as SQL over jsonb, with the meaning that `core.filters.matches` gives them.

Values are parameters, never text of the statement. jsonb compares numbers exactly, and keeps texts, numbers and truth
values apart; SQL's path language compares texts by code point, and asks a value and the items of a list alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from acclimate.core.filters import BOUNDS, And, Condition, Eq, Exists, Filter, In, Not, Or, Range, Scalar

MAX_CONTAINED = 32
"""Values of an `In` that are looked up in the index over metadata one by one; more are compared row by row."""
_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

FieldOf = Callable[[str], sql.Composable]
"""Field -> the SQL of its value as jsonb, NULL where it is missing."""


@dataclass(slots=True)
class Clause:
    """A condition of SQL, growing part by part, and the values of its placeholders."""

    fields: sql.Composable | FieldOf
    """The jsonb object that holds all fields, which has an index; or the SQL of each field's value."""
    values: dict[str, Any] = field(default_factory=dict)

    def write(self, filter: Filter) -> sql.Composable:
        """The SQL of a filter; its values are added to `values`."""
        match filter:
            case And(parts):
                return self._joined(parts, " AND ", "TRUE")
            case Or(parts):
                return self._joined(parts, " OR ", "FALSE")
            case Not(part):
                return sql.SQL("NOT ({})").format(self.write(part))
            case _:
                return self._condition(filter)

    def _joined(self, parts: Sequence[Filter], word: str, nothing: str) -> sql.Composable:
        if not parts:
            return sql.SQL(nothing)
        return sql.SQL(word).join(sql.SQL("({})").format(self.write(part)) for part in parts)

    def _condition(self, condition: Condition) -> sql.Composable:
        match condition:
            case Eq(name, value):
                return self._one_of(name, [value])
            case In(name, values):
                return self._one_of(name, values)
            case Exists(name):
                return self._path(name, "$[*] ? (@ != null)", {})
            case Range(name):
                given = {sign: getattr(condition, sign) for sign in BOUNDS}
                bounds = {sign: number(bound) for sign, bound in given.items() if bound is not None}
                asked = " && ".join(f"@ {_SIGNS[sign]} ${sign}" for sign in bounds) or "@ != null"
                return self._path(name, f"$[*] ? ({asked})", bounds)

    def _one_of(self, name: str, values: Sequence[Scalar]) -> sql.Composable:
        numbers = [number(value) for value in values]
        if not isinstance(self.fields, sql.Composable) or len(values) > MAX_CONTAINED:
            return self._path(name, "$[*] ? (@ == $values[*])", {"values": numbers})
        contained = [
            sql.SQL("{} @> {}").format(self.fields, self._value(Jsonb({name: item})))
            for value in numbers
            for item in (value, [value])
        ]
        return sql.SQL("({})").format(sql.SQL(" OR ").join(contained))

    def _path(self, name: str, path: str, variables: dict[str, Any]) -> sql.Composable:
        if isinstance(self.fields, sql.Composable):
            value: sql.Composable = sql.SQL("({} -> {}::text)").format(self.fields, self._value(name))
        else:
            value = self.fields(name)
        return sql.SQL("COALESCE(jsonb_path_exists({}, {}::jsonpath, {}), FALSE)").format(
            value, self._value(path), self._value(Jsonb(variables))
        )

    def _value(self, value: Any) -> sql.Composable:
        name = f"filter{len(self.values)}"
        self.values[name] = value
        return sql.Placeholder(name)


def number(value: Scalar) -> Scalar:
    """A value as it is written as JSON: a whole fraction as a whole number, whose digits are then all there (2.0^60 has
    nineteen, the shortest text of the fraction has fifteen)."""
    if isinstance(value, float) and value == int(value) and -(2**63) <= value < 2**63:
        return int(value)
    return value
