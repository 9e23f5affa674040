"""Which characters of a text are words of a query, as an index's analyser counts words: what a page marks."""

from __future__ import annotations

from typing import TypeAlias

from acclimate.core.analyser import STOP_WORDS, Analyser, located_words, words
from acclimate.core.lexicon import is_cjk

Span: TypeAlias = tuple[int, int]
"""Where something begins and ends in a text, in characters (code points); the end is excluded."""

MAX_CHARACTERS = 20_000
"""What is looked at of a text: more than a page shows."""
_USUAL = "english"
"""Whose stop words are not marked where the analyser has no language."""


def highlights(text: str, query: str, analyser: Analyser) -> list[Span]:
    """Find the query's words in a text: the same stems, the same pairs of CJK characters, but no stop words.

    A single CJK character of a query is found anywhere. Stop words are marked where the query has nothing else.

    Args:
        text: of a document.
        query: what was searched for.
        analyser: of the index.

    Returns:
        Where they are in the first `MAX_CHARACTERS` of the text, in order, apart from one another.
    """
    asked = words(query)
    out = STOP_WORDS[analyser.language or _USUAL]
    telling = [word for word in asked if word not in out] or asked
    wanted = {analyser.stem(word) for word in telling}
    singles = {word for word in telling if len(word) == 1 and is_cjk(word)}
    looked_at = text[:MAX_CHARACTERS]
    spans = [(start, end) for word, start, end in located_words(looked_at) if analyser.stem(word) in wanted]
    if singles:
        spans += [(place, place + 1) for place, character in enumerate(looked_at) if character in singles]
    return _joined(spans)


def _joined(spans: list[Span]) -> list[Span]:
    """Spans that touch or overlap, as one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
