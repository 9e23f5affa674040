"""From a text to the terms that a lexical index counts: words, bigrams of CJK characters, stop words, stems.

Pure functions of the text and the settings, the same in every thread.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import regex
import snowballstemmer

from acclimate.core.lexicon import CJK


def _stop_words_of_bm25s() -> ModuleType:
    """The module of its lists alone: where JAX is installed, importing bm25s has JAX take 3/4 of a GPU's memory."""
    package = importlib.util.find_spec("bm25s")
    if package is None or not package.origin:
        raise ModuleNotFoundError("No module named 'bm25s'", name="bm25s")
    lists = importlib.util.spec_from_file_location("bm25s_stopwords", Path(package.origin).with_name("stopwords.py"))
    assert lists is not None and lists.loader is not None
    module = importlib.util.module_from_spec(lists)
    lists.loader.exec_module(module)
    return module


stopwords = _stop_words_of_bm25s()
STOP_WORDS: dict[str, frozenset[str]] = {
    "danish": frozenset(stopwords.STOPWORDS_DANISH),
    "dutch": frozenset(stopwords.STOPWORDS_DUTCH),
    "english": frozenset(stopwords.STOPWORDS_EN_PLUS),
    "french": frozenset(stopwords.STOPWORDS_FRENCH),
    "german": frozenset(stopwords.STOPWORDS_GERMAN),
    "italian": frozenset(stopwords.STOPWORDS_ITALIAN),
    "norwegian": frozenset(stopwords.STOPWORDS_NORWEGIAN),
    "portuguese": frozenset(stopwords.STOPWORDS_PORTUGUESE),
    "russian": frozenset(stopwords.STOPWORDS_RUSSIAN),
    "spanish": frozenset(stopwords.STOPWORDS_SPANISH),
    "swedish": frozenset(stopwords.STOPWORDS_SWEDISH),
}
"""Language, by the name of its Snowball stemmer -> its stop words: NLTK's lists, as bm25s ships them."""
MIN_STOP_SHARE = 0.2
"""Share of a text's words that are its language's stop words, at least: of English prose it is 0.4, of the other
languages' prose with the English list below 0.15."""
CACHED_STEMS = 200_000

_PART = regex.compile(rf"([{CJK}]+)")
_BOUNDARY = regex.compile(r"(?wV1)\b")
"""The default word boundaries of Unicode Standard Annex 29."""
_CLUSTER = regex.compile(r"\X")
"""What people take for one character: a letter with its marks."""
_LETTER = regex.compile(r"[\p{Alphabetic}\p{N}]")
_ASCII_WORD = re.compile(
    r"(?=_*[a-z0-9]|'[aeiou])(?:(?<![a-z])'(?=[aeiou]))?"
    r"(?:[a-z0-9_]|(?<=[a-z])[.':](?=[a-z])|(?<=[0-9])[.,;'](?=[0-9]))+"
)
"""What lies between those boundaries in lower-case ASCII text, in about a third of the time; an apostrophe before a
vowel and after no letter belongs to the word, as `_BOUNDARY` has it."""


@dataclass(frozen=True, slots=True)
class Analyser:
    """How texts become terms. The default is words as they stand."""

    language: str | None = None
    """A key of `STOP_WORDS`; without one nothing is left out or stemmed."""
    stop_words: bool = False
    """Leave out the language's stop words."""
    stemming: bool = False
    """Reduce words to stems by the language's Snowball stemmer (Porter 2001)."""

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in its order."""
        found = words(text)
        if self.language is None:
            return found
        if self.stop_words:
            out = STOP_WORDS[self.language]
            found = [word for word in found if word not in out]
        return [_stem(self.language, word) for word in found] if self.stemming else found

    def stem(self, word: str) -> str:
        """What one of `words` is counted as."""
        return word if self.language is None or not self.stemming else _stem(self.language, word)


class Located(NamedTuple):
    """A word, and where it stands in its text, in characters (code points)."""

    word: str
    start: int
    end: int
    """The place after its last character."""


def words(text: str) -> list[str]:
    """The words of a text in lower case; runs of Chinese, Japanese and Korean characters as overlapping bigrams.

    The text is brought to NFKC first, so that full-width letters are letters. Words end at the default boundaries of
    Unicode Standard Annex 29, as in Lucene's StandardAnalyzer: "isn't", "3.5" and "my_dir" are one word each.
    CJK characters pair up as in Lucene's CJKAnalyzer (one that stands alone is a word), so that no dictionary decides
    what is found.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    found: list[str] = []
    for place, part in enumerate(_PART.split(_folded(text))):
        if place % 2 == 0:
            found.extend(word for word in _BOUNDARY.split(part) if _LETTER.search(word))
        elif len(part) == 1:
            found.append(part)
        else:
            found.extend(part[start : start + 2] for start in range(len(part) - 1))
    return found


def located_words(text: str) -> list[Located]:
    """What `words` finds, each with its place in the text as it was given.

    The two differ only where NFKC makes one character of two that people see as two (Korean letters of the
    compatibility block): here each stays its own.
    """
    if text.isascii():
        return [Located(found[0], *found.span()) for found in _ASCII_WORD.finditer(text.lower())]
    folded, starts, ends = _folded_with_places(text)
    found: list[Located] = []
    begin = 0
    for place, part in enumerate(_PART.split(folded)):
        for word, at in _pieces(part) if place % 2 == 0 else _pairs(part):
            found.append(Located(word, starts[begin + at], ends[begin + at + len(word) - 1]))
        begin += len(part)
    return found


def _pieces(part: str) -> Iterator[tuple[str, int]]:
    """The words of a text without CJK characters, and where they begin."""
    at = 0
    for piece in _BOUNDARY.split(part):
        if _LETTER.search(piece):
            yield piece, at
        at += len(piece)


def _pairs(part: str) -> Iterator[tuple[str, int]]:
    """The pairs of neighbours in a run of CJK characters, and where they begin; one that stands alone is a word."""
    for at in range(max(len(part) - 1, 1)):
        yield part[at : at + 2], at


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower().replace("’", "'")


def _folded_with_places(text: str) -> tuple[str, list[int], list[int]]:
    """The folded text, and for each of its characters where in the text that begins and ends of which it was made."""
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for cluster in _CLUSTER.findall(text):
        part = _folded(cluster)
        parts.append(part)
        starts += [at] * len(part)
        at += len(cluster)
        ends += [at] * len(part)
    whole = _folded(text)
    return whole if len(whole) == len(starts) else "".join(parts), starts, ends


def language_of(texts: Iterable[str]) -> str | None:
    """The language of some texts, by whose stop words are most frequent in them (Grefenstette 1995).

    Returns:
        A key of `STOP_WORDS`; None where every list's share is below `MIN_STOP_SHARE`: another language, or no prose.
    """
    counts = Counter(word for text in texts for word in words(text))
    shares = {name: sum(counts[word] for word in out) / max(counts.total(), 1) for name, out in STOP_WORDS.items()}
    language = max(shares, key=lambda name: shares[name])
    return language if shares[language] >= MIN_STOP_SHARE else None


@lru_cache(maxsize=CACHED_STEMS)
def _stem(language: str, word: str) -> str:
    # A stemmer holds the word that it works on, so each call has its own.
    return str(snowballstemmer.stemmer(language).stemWord(word))
