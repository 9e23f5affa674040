"""The terms of a domain: finding known ones in a text, and extracting unknown ones from a corpus.

Pure functions on strings; no word segmentation library and no list of stop words, so that the result does not depend
on a language's resources (but for a few Chinese characters, which are no words of their own).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese, Japanese and Korean letters, as the inside of a regular expression's class: no space parts their words."""
_TOKEN = re.compile(rf"[{CJK}]|(?:(?![{CJK}])\w)+|[^\w\s]")
_INSIDE_WORD = re.compile(rf"(?<=[^\W{CJK}])(?=[^\W{CJK}])")
_WORD = rf"(?:(?![{CJK}])\w)+(?:[-'’](?:(?![{CJK}])\w)+)*"
_RUN = re.compile(rf"[{CJK}]+|{_WORD}(?: {_WORD})*")
_CJK_START = re.compile(rf"[{CJK}]")
_BORDER = ""
_FUNCTION_CHARACTERS = frozenset("的了吗呢和与及或而但也很这那于以到是")
"""Chinese particles, conjunctions and prepositions that are hardly ever the first or last character of a term: they
bind as tightly to a word as its own characters do, so that neither cohesion nor entropy tells 常见的 from 常见."""


def fold(text: str) -> str:
    """The form in which terms and texts are compared: NFKC, case-folded, every run of whitespace one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class Lexicon:
    """A set of terms that are looked up in texts.

    A term is found where it begins and ends with a token: a CJK character, a word of any other script, or a
    punctuation mark. So "rust" is not in "trust", "锈病" is in "小麦条锈病", and "c++" is a term like any other. Terms
    may overlap; no stemming: list "seedling" and "seedlings" where both shall count.

    A text costs one look-up for each of its tokens, and one more per length of the terms that begin with that token,
    whatever the number of terms.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        """Take the terms; of terms that fold to the same form the first is kept, blank ones are left out."""
        self.terms: dict[str, str] = {}
        """Folded form -> the term as given."""
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for term in terms:
            if (folded := fold(term)) and (first := _TOKEN.match(folded)):
                self.terms.setdefault(folded, term)
                lengths[first.group()].add(len(folded))
        self._lengths = {token: tuple(sorted(found)) for token, found in lengths.items()}
        """A term's first token -> the lengths of all that begin with it."""

    def __len__(self) -> int:
        """How many distinct terms there are."""
        return len(self.terms)

    def find(self, text: str) -> list[str]:
        """The distinct terms that a text holds, as they were given, in the order in which they first occur."""
        folded = fold(text)
        terms: dict[str, None] = {}
        for token in _TOKEN.finditer(folded):
            for length in self._lengths.get(token.group(), ()):
                end = token.start() + length
                term = self.terms.get(folded[token.start() : end])
                if term is not None and not _INSIDE_WORD.match(folded, end):
                    terms[term] = None
        return list(terms)

    def count(self, text: str) -> int:
        """How many distinct terms a text holds."""
        return len(self.find(text))


@dataclass(frozen=True, slots=True)
class GramCounts:
    """How often every n-gram occurs in some texts."""

    grams: Counter[str]
    """Words joined by a space, CJK characters by nothing -> occurrences."""
    tokens: int
    """Words and CJK characters in all."""


def count_grams(texts: Iterable[str], *, max_words: int = 3, max_characters: int = 4) -> GramCounts:
    """Count the n-grams of words and of CJK characters; none reaches over a punctuation mark or into another script."""
    grams: Counter[str] = Counter()
    tokens = 0
    for text in texts:
        for run in _runs(text):
            tokens += len(run)
            longest = max_characters if is_cjk(run[0]) else max_words
            for size in range(1, min(longest, len(run)) + 1):
                grams.update(_join(run[start : start + size]) for start in range(len(run) - size + 1))
    return GramCounts(grams, tokens)


def log_odds_z(gram: str, domain: GramCounts, background: GramCounts, *, prior: float = 0.1) -> float:
    """By how many standard errors an n-gram is more frequent in the domain than in the background.

    The log-odds ratio under an informative Dirichlet prior: Monroe, Colaresi and Quinn 2008, equations 15, 20 and 22.
    The prior is the two sides' pooled counts, weighted as `prior` times as many tokens: it shrinks the difference of
    rare n-grams, for which the counts say little. Both sides must hold a token.
    """
    y_domain, y_background = domain.grams[gram], background.grams[gram]
    if y_domain + y_background == domain.tokens + background.tokens:
        return 0.0  # there is no other word
    a = prior * (y_domain + y_background)
    a_0 = prior * (domain.tokens + background.tokens)
    odds_domain = (y_domain + a) / (domain.tokens + a_0 - y_domain - a)
    odds_background = (y_background + a) / (background.tokens + a_0 - y_background - a)
    return math.log(odds_domain / odds_background) / math.sqrt(1 / (y_domain + a) + 1 / (y_background + a))


def cohesion(gram: str, counts: GramCounts) -> float:
    """Pointwise mutual information, in nats, of an n-gram's two parts at the split where it is least.

    Sproat and Shih 1990 (characters), Church and Hanks 1990 (words). Of a single token: infinite.
    """
    tokens = _split(gram)
    whole = counts.grams[gram] * counts.tokens
    parts = ((_join(tokens[:cut]), _join(tokens[cut:])) for cut in range(1, len(tokens)))
    return min((math.log(whole / (counts.grams[a] * counts.grams[b])) for a, b in parts), default=math.inf)


def branching_entropy(texts: Iterable[str], grams: Collection[str]) -> dict[str, float]:
    """For every n-gram: the entropy, in nats, of the tokens to its left and to its right, the lesser of the two.

    Jin and Tanaka-Ishii 2006: low inside an expression ("fertilis" is always followed by "er"), high at its ends. The
    border of a run of tokens is a new neighbour each time.
    """
    neighbours: dict[str, tuple[Counter[str], Counter[str]]] = {gram: (Counter(), Counter()) for gram in grams}
    sizes = {(is_cjk(gram[0]), len(_split(gram))) for gram in grams}
    for text in texts:
        for run in _runs(text):
            for size in (size for cjk, size in sizes if cjk == is_cjk(run[0])):
                for start in range(len(run) - size + 1):
                    if (sides := neighbours.get(_join(run[start : start + size]))) is not None:
                        sides[0][run[start - 1] if start else _BORDER] += 1
                        sides[1][run[start + size] if start + size < len(run) else _BORDER] += 1
    return {gram: min(map(_entropy, sides)) for gram, sides in neighbours.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TermRules:
    """What makes an n-gram a term: often enough, typical of the domain, one expression, and not common."""

    max_words: int = 3
    """Longest expression in a script with spaces, in words."""
    max_characters: int = 4
    """Longest CJK term, in characters; the shortest has two."""
    min_count: int = 5
    """Fewest occurrences of a term."""
    min_z: float = 1.96
    """`log_odds_z` below which the difference can be chance."""
    min_cohesion: float = 3.0
    """`cohesion` below which several tokens are a chance neighbourhood."""
    min_entropy: float = 0.7
    """`branching_entropy` below which several tokens are a fragment of something longer."""
    max_background: float = 0.001
    """Share of the background's tokens above which an n-gram is common there."""
    max_texts: float = 0.1
    """Share of the domain's texts above which an n-gram is common here."""


def extract_terms(
    domain: Sequence[str], background: Iterable[str], *, count: int, rules: TermRules | None = None
) -> list[str]:
    """The terms by which domain texts differ most from background texts, strongest first.

    Candidates are n-grams of words, and of CJK characters, ranked by `log_odds_z`. Several tokens must also be one
    expression, as unsupervised word discovery has it (`cohesion`, `branching_entropy`). What is common in the
    background, or stands in a large share of the domain's texts, is not a term, nor is an expression that begins or
    ends with such a word ("of the soil"): this takes the place of a list of stop words.

    Args:
        domain: texts; read more than once.
        background: out-of-domain texts in the same language.
        count: largest number of terms.
        rules: what makes a term.

    Returns:
        The terms, folded.
    """
    rules = rules or TermRules()
    here = count_grams(domain, max_words=rules.max_words, max_characters=rules.max_characters)
    there = count_grams(background, max_words=rules.max_words, max_characters=rules.max_characters)
    if not there.tokens:
        return []  # nothing to differ from
    z = {gram: log_odds_z(gram, here, there) for gram, number in here.grams.items() if number >= rules.min_count}
    most = rules.max_background * there.tokens
    common = {gram for gram, number in there.grams.items() if number > most}
    return _select(z, here, domain, common, rules)[:count]


def topic_terms(topics: Sequence[Sequence[str]], *, count: int, rules: TermRules | None = None) -> list[str]:
    """The terms that tell the topics of one corpus apart, strongest first: without any background.

    As `extract_terms`, but an n-gram is ranked by its highest `log_odds_z` for one topic against the others together.
    Words that all topics use alike drop out, and so do terms that all topics use alike.

    Args:
        topics: the texts of each topic.
        count: largest number of terms.
        rules: what makes a term.
    """
    rules = rules or TermRules()
    counted = [count_grams(texts, max_words=rules.max_words, max_characters=rules.max_characters) for texts in topics]
    here = GramCounts(Counter(), sum(counts.tokens for counts in counted))
    for counts in counted:
        here.grams.update(counts.grams)
    z: dict[str, float] = {}
    for counts in counted:
        often = [gram for gram, number in counts.grams.items() if number >= rules.min_count]
        others = Counter({gram: here.grams[gram] - counts.grams[gram] for gram in often})
        rest = GramCounts(others, here.tokens - counts.tokens)
        if rest.tokens:
            z |= {gram: max(z.get(gram, -math.inf), log_odds_z(gram, counts, rest)) for gram in often}
    return _select(z, here, [text for texts in topics for text in texts], set(), rules)[:count]


def _select(
    z: Mapping[str, float], here: GramCounts, texts: Sequence[str], common: Collection[str], rules: TermRules
) -> list[str]:
    """The n-grams that obey the rules, highest z first."""
    candidates = [gram for gram, value in z.items() if value >= rules.min_z and _may_be_term(gram)]
    edges = Lexicon(edge for gram in candidates for edge in _edges(gram))
    holding = Counter(term for text in texts for term in edges.find(text))
    common = {*common, *(gram for gram, number in holding.items() if number > rules.max_texts * len(texts))}
    tight = [
        gram for gram in candidates if common.isdisjoint(_edges(gram)) and cohesion(gram, here) >= rules.min_cohesion
    ]
    entropy = branching_entropy(texts, [gram for gram in tight if len(_split(gram)) > 1])
    terms = [gram for gram in tight if entropy.get(gram, math.inf) >= rules.min_entropy]
    return sorted(terms, key=lambda gram: (-z[gram], gram))


def _may_be_term(gram: str) -> bool:
    """Whether it is more than one character, and begins and ends with a real word (not "s" or "2", 的 or 三)."""
    if is_cjk(gram[0]):
        return len(gram) > 1 and not gram.isnumeric() and _FUNCTION_CHARACTERS.isdisjoint((gram[0], gram[-1]))
    return all(len(word) > 1 and not word.isnumeric() for word in _edges(gram))


def _edges(gram: str) -> tuple[str, ...]:
    """What must not be common: the first and the last word of an expression; a CJK term as a whole."""
    if is_cjk(gram[0]):
        return (gram,)
    words = gram.split(" ")
    return words[0], words[-1]


def _runs(text: str) -> Iterator[list[str]]:
    """The folded text's runs of CJK characters, and of words with nothing but a space between them."""
    return (_split(match.group()) for match in _RUN.finditer(fold(text)))


def _split(gram: str) -> list[str]:
    return list(gram) if is_cjk(gram[0]) else gram.split(" ")


def _join(tokens: Sequence[str]) -> str:
    return ("" if is_cjk(tokens[0]) else " ").join(tokens)


def is_cjk(text: str) -> bool:
    """Whether a text begins with a Chinese, Japanese or Korean character."""
    return _CJK_START.match(text) is not None


def _entropy(counted: Counter[str]) -> float:
    """Entropy of the neighbours; each border counts as a neighbour of its own."""
    total = counted.total()
    borders = counted[_BORDER]
    inner = (number / total for neighbour, number in counted.items() if neighbour != _BORDER)
    return borders / total * math.log(total) - sum(share * math.log(share) for share in inner) if total else 0.0
