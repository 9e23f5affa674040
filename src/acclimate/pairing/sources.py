"""Pairs that a document gives by itself. Every positive is a passage that is searched; its query is not a part of it,
but for crops. Pure functions of the document and a seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np

from acclimate.data.split import draw
from acclimate.data.weak import UNIT, units
from acclimate.pairing.made_pair import MadePair
from acclimate.pairing.passages import PassagedDocument

Maker: TypeAlias = Callable[[PassagedDocument, np.random.Generator], Iterator[tuple[str, str]]]
"""(document, draws) -> (query, passage)."""

MIN_TITLE_UNITS = 2
WHOLE_HEADING_UNITS = 3
"""A shorter heading says little without the title above it ("Results")."""
CROP_UNITS = (4, 24)
"""Shortest and longest part of a passage that stands for a query; at most half of it."""


def titles(document: PassagedDocument, _draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Pair the title with the beginning of the text."""
    if document.passages and units(document.title) >= MIN_TITLE_UNITS:
        yield document.title, document.passages[0].text


def headings(document: PassagedDocument, _draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Pair a heading with what stands below it; a short one with the title before it."""
    for asking in document.headings:
        if units(asking.text) >= WHOLE_HEADING_UNITS:
            yield asking.text, asking.passage.text
        elif document.title:
            yield f"{document.title} {asking.text}", asking.passage.text


def questions(document: PassagedDocument, _draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Pair a question that the document itself asks with the answer after it."""
    for asking in document.questions:
        yield asking.text, asking.passage.text


def neighbours(document: PassagedDocument, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Pair words of a passage with the passage after it (Contriever calls them positive by locality)."""
    for passage, following in itertools.pairwise(document.passages):
        if query := crop(passage.text, draws):
            yield query, following.text


def crops(document: PassagedDocument, draws: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Pair words of a passage with the whole of it (Lee et al. 2019 call it the inverse cloze task; they leave the
    words in the passage in one of ten cases, we in all, as passages are what is searched)."""
    for passage in document.passages:
        if query := crop(passage.text, draws):
            yield query, passage.text


def crop(text: str, draws: np.random.Generator) -> str:
    """Draw consecutive words of a text; none of a text that is too short for a part of it."""
    spans = [match.span() for match in UNIT.finditer(text)]
    low, high = CROP_UNITS
    high = min(high, len(spans) // 2)
    if high < low:
        return ""
    length = int(draws.integers(low, high + 1))
    start = int(draws.integers(len(spans) - length + 1))
    return text[spans[start][0] : spans[start + length - 1][1]]


MAKERS: Mapping[str, Maker] = {
    "title": titles,
    "heading": headings,
    "faq": questions,
    "neighbours": neighbours,
    "crop": crops,
}


def pairs_of(document: PassagedDocument, source: str, seed: int) -> Iterator[MadePair]:
    """Yield what one source makes of a document; the draws depend on the seed, the source and the document's id."""
    draws = np.random.default_rng(draw(seed, source, document.id))
    for query, passage in MAKERS[source](document, draws):
        query = " ".join(query.split())
        if query and query != passage:
            yield MadePair(query, passage, source, document.id)
