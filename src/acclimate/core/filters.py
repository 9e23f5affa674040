"""Filters over metadata: a small syntax tree, its JSON form, and what it means.

```
Filter = Eq | In | Range | Exists | And | Or | Not
```
`matches` is the definition that every backend of an index is tested against. A field has one value or several (a
list); a condition on it holds if it holds for one of them. Numbers compare with numbers (1 equals 1.0), texts with
texts by code point (so ISO dates are in order), truth values only with themselves; values of two kinds are never equal
and never in order. A field that is missing satisfies no condition, so that `Not` of a condition is true for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from acclimate.errors import UsageError

Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | tuple[Scalar, ...]
Metadata: TypeAlias = Mapping[str, Value]
"""Field -> its value, or its values."""

MAX_DEPTH = 32
"""Levels of a filter, one inside the other."""
MAX_CONDITIONS = 1000
MAX_VALUES = 10_000
"""Values of one `In`."""


@dataclass(frozen=True, slots=True)
class Eq:
    """The field has this value."""

    field: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of these values."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies between two bounds, both numbers or both texts; None is no bound."""

    field: str
    gt: float | int | str | None = None
    gte: float | int | str | None = None
    lt: float | int | str | None = None
    lte: float | int | str | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there."""

    field: str


@dataclass(frozen=True, slots=True)
class And:
    """All of these hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of these holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """This does not hold."""

    part: Filter


Condition: TypeAlias = Eq | In | Range | Exists
Filter: TypeAlias = Condition | And | Or | Not

BOUNDS = ("gt", "gte", "lt", "lte")


def matches(filter: Filter, metadata: Metadata) -> bool:
    """Whether a document with this metadata passes the filter."""
    match filter:
        case And(parts):
            return all(matches(part, metadata) for part in parts)
        case Or(parts):
            return any(matches(part, metadata) for part in parts)
        case Not(part):
            return not matches(part, metadata)
        case _:
            return holds(filter, metadata.get(filter.field))


def holds(condition: Condition, value: Value | None) -> bool:
    """Whether a condition holds for the value, or for one of the values, of its field; None is a missing field."""
    values = () if value is None else value if isinstance(value, tuple) else (value,)
    match condition:
        case Eq(_, wanted):
            return any(same(item, wanted) for item in values)
        case In(_, wanted_values):
            return any(same(item, wanted) for item in values for wanted in wanted_values)
        case Range():
            return any(_within(item, condition) for item in values)
        case Exists():
            return bool(values)


def kind(value: Scalar) -> str:
    """The kind of a value: only values of one kind are compared."""
    return "truth value" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def same(left: Scalar, right: Scalar) -> bool:
    """Whether two values are equal: of the same kind, and equal as Python has it."""
    return kind(left) == kind(right) and left == right


def _within(value: Scalar, bounds: Range) -> bool:
    given = [bound for bound in (bounds.gt, bounds.gte, bounds.lt, bounds.lte) if bound is not None]
    if any(kind(bound) != kind(value) for bound in given):
        return False
    item: Any = value
    return (
        (bounds.gt is None or item > bounds.gt)
        and (bounds.gte is None or item >= bounds.gte)
        and (bounds.lt is None or item < bounds.lt)
        and (bounds.lte is None or item <= bounds.lte)
    )


def conditions(filter: Filter) -> list[Condition]:
    """All conditions of a filter, from left to right."""
    match filter:
        case And(parts) | Or(parts):
            return [condition for part in parts for condition in conditions(part)]
        case Not(part):
            return conditions(part)
        case _:
            return [filter]


def to_json(filter: Filter) -> dict[str, Any]:
    """Return the JSON form: `{"and": [{"field": "year", "gte": 2020}, {"not": {"field": "crop", "in": ["rice"]}}]}`."""
    match filter:
        case And(parts):
            return {"and": [to_json(part) for part in parts]}
        case Or(parts):
            return {"or": [to_json(part) for part in parts]}
        case Not(part):
            return {"not": to_json(part)}
        case Eq(field, value):
            return {"field": field, "eq": value}
        case In(field, values):
            return {"field": field, "in": list(values)}
        case Exists(field):
            return {"field": field, "exists": True}
        case Range(field):
            given = {name: getattr(filter, name) for name in BOUNDS}
            return {"field": field} | {name: bound for name, bound in given.items() if bound is not None}


def from_json(value: Any) -> Filter:
    """Read the JSON form.

    Raises:
        UsageError: it is not one, is nested deeper than `MAX_DEPTH`, or has more than `MAX_CONDITIONS` conditions.
    """
    return checked(_read(value, 1))


def checked(filter: Filter) -> Filter:
    """Return the filter, if it has no more than `MAX_CONDITIONS` conditions.

    Raises:
        UsageError: it has more.
    """
    count = len(conditions(filter))
    if count > MAX_CONDITIONS:
        raise UsageError(f"a filter has {count:,} conditions", possible=f"up to {MAX_CONDITIONS:,}", fix="Use `in`.")
    return filter


def too_deep() -> UsageError:
    """The error for a filter of more than `MAX_DEPTH` levels."""
    return UsageError(f"a filter is nested more than {MAX_DEPTH} levels deep", fix="Write it flatter.")


def _read(value: Any, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise too_deep()
    if not isinstance(value, Mapping):
        raise _unreadable(value)
    match dict(value):
        case {"and": [*parts]} if parts and len(value) == 1:
            return And(tuple(_read(part, depth + 1) for part in parts))
        case {"or": [*parts]} if parts and len(value) == 1:
            return Or(tuple(_read(part, depth + 1) for part in parts))
        case {"not": part} if len(value) == 1:
            return Not(_read(part, depth + 1))
        case {"field": str(field), **rest} if field:
            return _condition(field, rest, value)
        case _:
            raise _unreadable(value)


def _condition(field: str, rest: Mapping[str, Any], whole: Any) -> Condition:
    match dict(rest):
        case {"eq": item, **more} if not more:
            return Eq(field, scalar(item))
        case {"in": [*items], **more} if not more:
            return one_of(field, items)
        case {"exists": True, **more} if not more:
            return Exists(field)
        case bounds if bounds and bounds.keys() <= set(BOUNDS):
            return between(field, bounds)
        case _:
            raise _unreadable(whole)


def one_of(field: str, items: Sequence[Any]) -> In:
    """Make an `In` of values that a user wrote.

    Raises:
        UsageError: no values, more than `MAX_VALUES`, or one that cannot be a value.
    """
    if not 1 <= len(items) <= MAX_VALUES:
        raise UsageError(f"`in` of the field {field!r} has {len(items):,} values", possible=f"1 to {MAX_VALUES:,}")
    return In(field, tuple(scalar(item) for item in items))


def between(field: str, bounds: Mapping[str, Any]) -> Range:
    """Make a `Range` of bounds that a user wrote: some of gt, gte, lt, lte.

    Raises:
        UsageError: bounds of two kinds, or one that is neither a number nor a text.
    """
    values = {name: scalar(bound) for name, bound in bounds.items()}
    kinds = {kind(bound) for bound in values.values()}
    if len(kinds) > 1 or "truth value" in kinds:
        raise UsageError(
            f"the bounds of the field {field!r} are {', '.join(map(repr, values.values()))}",
            possible="numbers, or texts, not both",
        )
    return Range(field, **values)


def scalar(value: Any) -> Scalar:
    """Return a value that a filter or metadata can have.

    Raises:
        UsageError: it is neither a text, a finite number of 64 bits nor a truth value.
    """
    if isinstance(value, str | bool) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise UsageError(f"a value is {str(value)[:80]!r}", possible="a text, a finite number (64 bits), true or false")


def _unreadable(value: Any) -> UsageError:
    shown = str(value)
    return UsageError(
        f"a filter is {shown if len(shown) <= 80 else shown[:79] + '…'}",
        possible='{"and": […]}, {"or": […]}, {"not": …}, {"field": "year", "gte": 2020}; eq, in, gt, lt, lte, exists',
    )
