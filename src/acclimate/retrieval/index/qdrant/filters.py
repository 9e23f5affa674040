"""Filters as Qdrant has them, with the meaning that `core.filters.matches` gives them.

Qdrant keeps whole numbers, fractions, texts and truth values apart, and compares numbers as 64-bit floats. Documents
are written with whole fractions (5.0) as whole numbers, so that beyond 2^53, where floats have gaps, whole numbers can
be compared exactly by equality; a bound there is refused. Qdrant has no order of texts: what a field has of texts is
asked for, and those within the bounds are listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from qdrant_client import models

from acclimate.core.filters import And, Eq, Exists, Filter, In, Not, Or, Range, Scalar, holds
from acclimate.errors import UsageError

EXACT_FLOATS = 2**53
"""Below it every whole number is a float of its own."""

TextsOf = Callable[[str], Sequence[str]]
"""Field -> the different texts that documents have in it."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"%": "%25", '"': "%22", "\\": "%5C"}


def payload_name(field: str) -> str:
    """A field's name in the payload: a path can quote everything but a quotation mark."""
    return "".join(_ESCAPES.get(character, character) for character in field)


def path(prefix: str, field: str) -> str:
    """A field's path in the payload, quoted only where it has to be, as the server itself writes it."""
    return f"{prefix}{field}" if _BARE.fullmatch(field) else f'{prefix}"{payload_name(field)}"'


def field_name(name: str) -> str:
    """The field of a name in the payload."""
    for character, escaped in reversed(_ESCAPES.items()):
        name = name.replace(escaped, character)
    return name


def to_qdrant(filter: Filter, prefix: str, texts_of: TextsOf) -> models.Filter:
    """Write a filter in Qdrant's form.

    Args:
        filter: a filter.
        prefix: of the paths in the payload: `metadata.`, or nothing.
        texts_of: asked for the texts of a field that is compared with a text.

    Raises:
        UsageError: a bound at which Qdrant is not exact.
    """
    match filter:
        case And(parts):
            return models.Filter(must=[to_qdrant(part, prefix, texts_of) for part in parts])
        case Or(()):
            return models.Filter(must=[models.HasIdCondition(has_id=[])])
        case Or(parts):
            return models.Filter(should=[to_qdrant(part, prefix, texts_of) for part in parts])
        case Not(part):
            return models.Filter(must_not=[to_qdrant(part, prefix, texts_of)])
    key = path(prefix, filter.field)
    match filter:
        case Eq(_, value):
            return models.Filter(should=_one_of(key, [value]))
        case In(_, values):
            return models.Filter(should=_one_of(key, values))
        case Exists() | Range(_, None, None, None, None):
            return models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])
        case Range():
            return _between(key, filter, texts_of)


def _one_of(key: str, values: Sequence[Scalar]) -> list[models.Condition]:
    """Conditions one of which holds where the field has one of the values."""
    truths = {value for value in values if isinstance(value, bool)}
    found: list[models.Condition] = [
        models.FieldCondition(key=key, match=models.MatchValue(value=value)) for value in truths
    ]
    if texts := [value for value in values if isinstance(value, str)]:
        found.append(models.FieldCondition(key=key, match=models.MatchAny(any=texts)))
    numbers = [value for value in values if not isinstance(value, str | bool)]
    if large := [int(value) for value in numbers if abs(value) >= EXACT_FLOATS and is_whole(value)]:
        found.append(models.FieldCondition(key=key, match=models.MatchAny(any=large)))
    # As a range, because that finds 5 and 5.0, and is what an index of numbers answers.
    found += [
        models.FieldCondition(key=key, range=models.Range(gte=float(value), lte=float(value)))
        for value in numbers
        if abs(value) < EXACT_FLOATS or not is_whole(value)
    ]
    return found


def is_whole(value: float) -> bool:
    """Whether a number can be written as a whole number of 64 bits."""
    return value == int(value) and -(2**63) <= value < 2**63


def _between(key: str, bounds: Range, texts_of: TextsOf) -> models.Filter:
    given = {name: getattr(bounds, name) for name in ("gt", "gte", "lt", "lte")}
    given = {name: bound for name, bound in given.items() if bound is not None}
    if any(isinstance(bound, str) for bound in given.values()):
        within = [text for text in texts_of(key) if holds(bounds, text)]
        return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchAny(any=within))])
    for bound in given.values():
        if abs(bound) >= EXACT_FLOATS:
            raise UsageError(
                f"the bound {bound} of the field {bounds.field!r}",
                possible="numbers between -2^53 and 2^53: Qdrant compares numbers as 64-bit floats",
                fix="Keep such numbers as texts of one length, which compare in the same order.",
            )
    return models.Filter(must=[models.FieldCondition(key=key, range=models.Range(**given))])
