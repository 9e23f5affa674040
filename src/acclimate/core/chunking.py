"""A long text -> overlapping chunks of so many tokens, which begin and end on sentence borders where they can.

Pure functions of a text and its tokens' places.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from acclimate.core.lexicon import CJK

_SENTENCE_END = re.compile(
    r"""
    [.!?…]+["'”’»)\]]*(?=\s)        # a full stop counts where white space follows: not in 3.5, not in a.b
    | [。！？；｡]+["'”’」』）》\]]*    # a Chinese or Japanese one anywhere
    | \n(?:\s*\n)+                  # a paragraph
    | \n(?=\s*(?:[-*+#>|]|\d+[.)]\s))    # a list's entry, a heading, a table's row, in Markdown
    """,
    re.VERBOSE,
)
_CJK_CHARACTER = re.compile(f"[{CJK}]")


class Span(NamedTuple):
    """A part of a text, `text[start:end]`."""

    start: int
    end: int


def chunk_spans(text: str, tokens: Sequence[tuple[int, int]], max_tokens: int, overlap: int) -> list[Span]:
    """Cut a text into chunks that together hold all of it but white space.

    A chunk ends with the last sentence that fits; a sentence that does not fit by itself is cut between words, and a
    word that does not fit between tokens. The next chunk goes back by whole sentences of at most `overlap` tokens, or,
    where the last sentence is longer than that, into that sentence.

    Args:
        text: the text.
        tokens: (start, end) of each token in it, special tokens left out; several may share one character.
        max_tokens: the most tokens per chunk.
        overlap: the most tokens that a chunk shares with the one before; below `max_tokens`.

    Returns:
        Spans in order, none of them empty, without white space at their ends; none for a blank text.
    """
    if not tokens or len(tokens) <= max_tokens:
        return _stripped(text, [(0, len(text))])
    places = _Places.of(text, tokens)
    spans: list[tuple[int, int]] = []
    start, end = 0, 0
    while end < len(tokens):
        end = places.last_end(start, end, max_tokens)
        spans.append((places.characters[start], places.characters[end]))
        start = places.next_start(start, end, max_tokens, overlap)
    return _stripped(text, spans)


class _Places(NamedTuple):
    """Where a text may be cut, as token numbers in order; the number after the last token is among them."""

    characters: list[int]
    """Token number -> the character at which a chunk that begins there begins."""
    sentences: list[int]
    words: list[int]
    whole: list[int]
    """Tokens that share no character with the one before."""

    @classmethod
    def of(cls, text: str, tokens: Sequence[tuple[int, int]]) -> _Places:
        starts = [start for start, _ in tokens]
        count = len(tokens)
        whole = [number for number in range(1, count) if starts[number] >= tokens[number - 1][1]]
        words = [number for number in whole if _between_words(text, tokens[number - 1][1], starts[number])]
        allowed = set(whole)
        ends = (bisect_left(starts, match.end()) for match in _SENTENCE_END.finditer(text))
        sentences = sorted({number for number in ends if number in allowed})
        return cls([0, *starts[1:], len(text)], [*sentences, count], [*words, count], [*whole, count])

    def last_end(self, start: int, before: int, max_tokens: int) -> int:
        """Return where a chunk ends: as late as it can, on the best kind of border, and after `before`."""
        limit = start + max_tokens
        for borders in (self.sentences, self.words, self.whole):
            place = bisect_right(borders, limit) - 1
            if place >= 0 and borders[place] > before:
                return borders[place]
        return self.whole[bisect_right(self.whole, before)]  # one character of more tokens than the limit

    def next_start(self, start: int, end: int, max_tokens: int, overlap: int) -> int:
        """Return where the chunk after this one begins: at `end`, or before it by the overlap."""
        earliest = max(end - overlap, start + 1)
        for borders in (self.sentences, self.words, self.whole):
            following = borders[min(bisect_right(borders, end), len(borders) - 1)]
            if following - end <= max_tokens:  # what comes next fits: not so far back that it does not
                earliest = max(earliest, following - max_tokens)
                break
        for borders in (self.sentences, self.words, self.whole):
            place = bisect_left(borders, earliest)
            if place < len(borders) and borders[place] < end:
                return borders[place]
        return end


def _between_words(text: str, end: int, start: int) -> bool:
    """Whether a token that ends and one that starts here belong to two words: there is space between them, or one of
    both is a CJK character; but no punctuation mark begins a chunk."""
    if start > end or text[start - 1].isspace() or text[start].isspace():
        return True
    both_sides = text[start - 1 : start + 1]
    return text[start].isalnum() and _CJK_CHARACTER.search(both_sides) is not None


def _stripped(text: str, spans: Sequence[tuple[int, int]]) -> list[Span]:
    found = []
    for start, end in spans:
        part = text[start:end]
        left = start + len(part) - len(part.lstrip())
        right = left + len(part.strip())
        if right > left:
            found.append(Span(left, right))
    return found
