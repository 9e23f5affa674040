"""Weak pairs: training pairs made from a corpus alone, without queries. Pure functions of the texts and a seed.

Three kinds: a title and its body; two neighbouring passages of one document; two random crops of one text. No dev or
test query, and no document judged for one, is part of a pair: the model has seen the documents of the test as little as
those that will be added to the index later.

Units: words, and single characters of scripts that put no spaces between words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from acclimate.data.dataset import Dataset, held_out
from acclimate.types import Example

Pair: TypeAlias = tuple[str, str]
Maker: TypeAlias = Callable[[str, str, np.random.Generator], Iterator[Pair]]
"""(a document's text, its title or "", draws) -> pairs."""

UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Kana and Han."""
UNIT = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])(?![”’」』）》】])|(?<=[。！？；][”’」』）》】])")
"""A closing mark behind the stop belongs to the sentence."""
PASSAGE_UNITS = 40
"""A passage has this many units, and goes on to the end of the sentence."""
WINDOW_UNITS = 256
"""Longer texts are cropped within a window of this length."""
CROP_SHARES = (0.05, 0.5)
"""Shortest and longest crop, as a share of the window (Contriever's)."""
MIN_CROP_UNITS = 8
"""Shortest crop, or half of a shorter text: fewer words carry too little meaning."""
MIN_UNITS = 6
"""Shorter texts are not cropped."""


def weak_pairs(dataset: Dataset, kinds: Sequence[str], limit: int, seed: int) -> dict[str, list[Example]]:
    """Make pairs of every kind, from all documents but those judged for dev or test queries.

    Args:
        dataset: of kind "retrieval".
        kinds: names in `KINDS`.
        limit: largest number of pairs of each kind, drawn evenly.
        seed: fixes the draws, together with the document's position.

    Returns:
        Kind -> training rows without negatives, in the order of the corpus; a kind that finds nothing is empty.
    """
    held = held_out(dataset)
    pairs: dict[str, list[Example]] = {}
    for number, kind in enumerate(kinds):
        distinct: dict[Pair, None] = {}
        for index, (document, text) in enumerate(dataset.corpus.items()):
            if held.excludes(text, "weak"):
                continue
            made = KINDS[kind](text, dataset.titles.get(document, ""), np.random.default_rng([seed, number, index]))
            distinct |= dict.fromkeys(pair for pair in made if not any(held.excludes(text, "weak") for text in pair))
        pairs[kind] = [Example(anchor, positive) for anchor, positive in _drawn(list(distinct), limit, seed)]
    return pairs


def title_and_body(text: str, title: str, _draws: np.random.Generator) -> Iterator[Pair]:
    """Pair a title with the text that follows it."""
    body = text.removeprefix(title).strip()
    if title and body and body != title:
        yield title, body


def neighbours(text: str, _title: str, _draws: np.random.Generator) -> Iterator[Pair]:
    """Pair every two consecutive passages of a long document (Contriever calls them positive by locality)."""
    yield from (pair for pair in itertools.pairwise(passages(text)) if pair[0] != pair[1])


def crops(text: str, _title: str, draws: np.random.Generator) -> Iterator[Pair]:
    """Pair two spans drawn independently from one text (Izacard et al. 2021, Contriever, section 3.1).

    The spans have 5 to 50 % of a window of 256 units, as in Contriever, but at least eight units, or half the text, as
    texts may be short here.
    """
    spans = [match.span() for match in UNIT.finditer(text)]
    if len(spans) < MIN_UNITS:
        return
    start = int(draws.integers(max(1, len(spans) - WINDOW_UNITS + 1)))
    window = spans[start : start + WINDOW_UNITS]
    first, second = (_crop(text, window, draws) for _ in range(2))
    if first != second:
        yield first, second


def passages(text: str) -> list[str]:
    """Cut a text at ends of sentences into passages of at least `PASSAGE_UNITS`; a short rest joins the last one."""
    starts = [0]
    for end in SENTENCE_END.finditer(text):
        if units(text[starts[-1] : end.start()]) >= PASSAGE_UNITS:
            starts.append(end.end())
    if len(starts) > 1 and units(text[starts[-1] :]) < PASSAGE_UNITS:
        starts.pop()
    return [text[start:end].strip() for start, end in itertools.pairwise([*starts, len(text)])]


KINDS: Mapping[str, Maker] = {"title": title_and_body, "neighbours": neighbours, "crop": crops}


def units(text: str) -> int:
    """Count the words, or characters, of a text."""
    return len(UNIT.findall(text))


def _crop(text: str, window: Sequence[tuple[int, int]], draws: np.random.Generator) -> str:
    low, high = CROP_SHARES
    length = max(min(MIN_CROP_UNITS, len(window) // 2), int(draws.uniform(low, high) * len(window)))
    start = int(draws.integers(len(window) - length + 1))
    return text[window[start][0] : window[start + length - 1][1]]


def _drawn(pairs: list[Pair], limit: int, seed: int) -> list[Pair]:
    if len(pairs) <= limit:
        return pairs
    chosen = np.random.default_rng([seed, limit]).choice(len(pairs), size=limit, replace=False)
    return [pairs[index] for index in sorted(chosen.tolist())]
