"""Filters as people write them: `year >= 2020 and crop in ("rice", "maize")`.

```
filter    = term ("or" term)*          term = factor ("and" factor)*
factor    = "not" factor | "(" filter ")" | "exists" "(" field ")" | field comparison
comparison = ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") value | ["not"] "in" "(" value ("," value)* ")"
field     = letters, digits, "_", "." and "-", or anything between backticks
value     = "text" or 'text' (with JSON's escapes), a number, true, false
```
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from acclimate.core.filters import (
    MAX_DEPTH,
    And,
    Condition,
    Eq,
    Exists,
    Filter,
    Not,
    Or,
    between,
    checked,
    from_json,
    one_of,
    scalar,
    too_deep,
)
from acclimate.errors import UsageError

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<quoted>`[^`]+`)
    |(?P<word>[^\W\d][\w.-]*)
    |(?P<sign><=|>=|==|!=|[=<>(),])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ORDER = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_EXAMPLE = 'year >= 2020 and crop in ("rice", "maize")'


class _Token(NamedTuple):
    kind: str
    text: str
    place: int
    """Where it begins in the filter, counted from 0."""


def parse_filter(text: str) -> Filter:
    """Read a filter as people write it, or its JSON form (which begins with a brace).

    Raises:
        UsageError: it cannot be read; the message says at which character.
    """
    if text.lstrip().startswith("{"):
        try:
            return from_json(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise UsageError(f"a filter is no JSON: {error}") from None
    reader = _Reader(text)
    found = reader.either(1)
    if reader.token.kind != "end":
        raise reader.unexpected("`and`, `or`, or the end")
    return checked(found)


class _Reader:
    """The tokens of a filter, read from left to right; a method for every rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.at = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def either(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise too_deep()
        parts = [self.both(depth)]
        while self.took("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self, depth: int) -> Filter:
        parts = [self.factor(depth)]
        while self.took("and"):
            parts.append(self.factor(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def factor(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise too_deep()
        if self.took("not"):
            return Not(self.factor(depth + 1))
        if self.took("("):
            inner = self.either(depth + 1)
            self.need(")")
            return inner
        if self.is_word("exists") and self.tokens[self.at + 1].text == "(":
            self.at += 2
            field = self.field()
            self.need(")")
            return Exists(field)
        return self.comparison(self.field())

    def comparison(self, field: str) -> Filter:
        if self.took("not"):
            self.need("in")
            return Not(self.members(field))
        if self.took("in"):
            return self.members(field)
        sign = self.token.text if self.token.kind == "sign" else ""
        if sign in {"=", "==", "!=", *_ORDER}:
            self.at += 1
            value = self.value()
            if sign in _ORDER:
                return between(field, {_ORDER[sign]: value})
            equal = Eq(field, scalar(value))
            return Not(equal) if sign == "!=" else equal
        raise self.unexpected("=, !=, <, <=, >, >=, in, not in")

    def members(self, field: str) -> Condition:
        self.need("(")
        values = [self.value()]
        while self.took(","):
            values.append(self.value())
        self.need(")")
        return one_of(field, values)

    def field(self) -> str:
        kind, text, _ = self.token
        if kind not in ("word", "quoted"):
            raise self.unexpected("the name of a field")
        self.at += 1
        return text.strip("`")

    def value(self) -> Any:
        kind, text, _ = self.token
        truth = {"true": True, "false": False}.get(text.lower())
        if kind == "text":
            value: Any = _unquoted(text)
        elif kind == "number":
            value = float(text) if set(text) & set(".eE") else int(text)
        elif kind == "word" and truth is not None:
            value = truth
        else:
            raise self.unexpected('a value: "text", a number, true or false')
        self.at += 1
        return value

    def is_word(self, word: str) -> bool:
        return self.token.kind == "word" and self.token.text.lower() == word

    def took(self, wanted: str) -> bool:
        """Whether the next token is this word or sign, which is then read."""
        found = self.is_word(wanted) or (self.token.kind == "sign" and self.token.text == wanted)
        self.at += found
        return found

    def need(self, wanted: str) -> None:
        if not self.took(wanted):
            raise self.unexpected(f"`{wanted}`")

    def unexpected(self, wanted: str) -> UsageError:
        found = "the end" if self.token.kind == "end" else repr(self.token.text[:40])
        return UsageError(
            f"a filter has {found} at character {self.token.place + 1}", possible=wanted, fix=f"Example: {_EXAMPLE}"
        )


def _tokens(text: str) -> list[_Token]:
    found, place = [], 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            raise UsageError(
                f"a filter cannot be read from character {start + 1} on: {text[start : start + 20]!r}",
                fix=f"Example: {_EXAMPLE}",
            )
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind)))
        place = match.end()
    return [*found, _Token("end", "", len(text))]


def _unquoted(text: str) -> str:
    """The text between quotes, its escapes resolved."""
    inner = text[1:-1]
    if text[0] == "'":
        inner = inner.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{inner}"', strict=False))
    except json.JSONDecodeError:
        raise UsageError(
            f"a filter has the text {text[:40]}", possible='the escapes of JSON: \\" \\\\ \\n \\u1234'
        ) from None
