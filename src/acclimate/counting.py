"""Numbers with their nouns, as messages and tables say them: "1 row", "2 rows", "1,500 queries"."""

from __future__ import annotations


def counted(number: int, nouns: str) -> str:
    """A number and its noun, in the singular where there is one of it.

    Args:
        number: how many.
        nouns: the plural, which may have words before it: "training rows".
    """
    return f"{number:,} {singular(nouns) if number == 1 else nouns}"


def singular(nouns: str) -> str:
    """The singular of a regular English plural: queries -> query, rows -> row."""
    return f"{nouns.removesuffix('ies')}y" if nouns.endswith("ies") else nouns.removesuffix("s")


def are(number: int) -> str:
    """The verb behind such a number: 1 row is, 2 rows are."""
    return "is" if number == 1 else "are"
