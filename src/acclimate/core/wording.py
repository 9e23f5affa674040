"""What two texts of about the same words may differ in, so that they do not mean the same: numbers, negation, order."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from acclimate.core.lexicon import CJK

_WORD = re.compile(rf"[{CJK}]|\d+(?:[.,:/]\d+)*|(?:(?![{CJK}])\w)+(?:['’](?:(?![{CJK}])\w)+)*")
_DIGITS = re.compile(r"\d")
_NUMBER_WORDS = frozenset("二三四五六七八九十百千万亿两半") | {
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty", "thirty"),
    *("forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million", "billion", "half"),
    *("twice", "double", "first", "second", "third", "fourth", "fifth", "last"),
}
_NEGATIONS = frozenset("不没無无未非别勿莫否") | {
    *("not", "no", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor", "without", "cannot"),
    *("except", "excluding", "unless"),
}
LEAST_SHARED = 0.5
"""Share of the words that two texts have to have in common for their order to count."""


def veto(one: str, other: str) -> str | None:
    """Say why the result of one text may not stand for the other, however near their vectors are.

    Returns:
        "numbers", "negation" or "order"; None where nothing says so.
    """
    first, second = words_of(one), words_of(other)
    if numbers(first) != numbers(second):
        return "numbers"
    if negations(first) != negations(second):
        return "negation"
    return "order" if is_reordered(first, second) else None


def words_of(text: str) -> list[str]:
    """Cut a text into words in small letters, numbers, and single Chinese, Japanese and Korean characters."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'"))


def numbers(words: list[str]) -> Counter[str]:
    """Count what is a number, in digits or in words."""
    return Counter(word for word in words if _DIGITS.search(word) or word in _NUMBER_WORDS)


def negations(words: list[str]) -> int:
    """Count what negates."""
    return sum(word in _NEGATIONS or word.endswith("n't") for word in words)


def is_reordered(first: list[str], second: list[str]) -> bool:
    """Whether two texts share much, in another order: "from A to B" and "from B to A".

    Words that occur twice in one of them do not count.
    """
    counts = Counter(first), Counter(second)
    shared = {word for word in counts[0] if counts[0][word] == counts[1][word] == 1}
    if 2 * len(shared) < LEAST_SHARED * (len(first) + len(second)):
        return False
    return [word for word in first if word in shared] != [word for word in second if word in shared]


def says_the_same(one: str, other: str, least: float) -> bool:
    """Whether two texts say the same in about the same words: no `veto`, and so high an F1 of their words.

    Args:
        one: a text.
        other: another one.
        least: F1 of the words, each counted as often as it occurs, from 0 to 1.
    """
    first, second = Counter(words_of(one)), Counter(words_of(other))
    total = first.total() + second.total()
    return veto(one, other) is None and (not total or 2 * (first & second).total() >= least * total)
