"""The vocabulary of a run's domain: the lexicon given, or one extracted from its texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acclimate.configs import DomainConfig
from acclimate.core.lexicon import Lexicon, extract_terms, topic_terms
from acclimate.counting import are, counted
from acclimate.data.background import texts_of_source
from acclimate.data.facts import evenly, languages
from acclimate.data.lexicon import Entries, background_sources, read_lexicon
from acclimate.evaluation.topics import lexical_topics

MAX_TEXTS = 5_000
MAX_CHARS = 2_000_000
"""Texts of the corpus, and of the background, that terms are extracted from: some ten seconds."""
FEW_TEXTS = 200
"""Fewer texts are too few to extract a vocabulary from."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The domain's terms, and where they come from."""

    lexicon: Lexicon
    origin: str
    """Where the terms come from, in words, for the report."""
    definitions: Entries = field(default_factory=dict)
    """Term -> its definitions, of those that a lexicon file defines."""


def domain_vocabulary(
    texts: Sequence[str], domain: DomainConfig, guard: Sequence[str] = (), *, seed: int
) -> Vocabulary:
    """The lexicon that a run names, or terms extracted from texts of its domain.

    Terms are extracted against the given background, or else against the guard data in the texts' script, or else by
    comparing the topics of the texts with each other.

    Args:
        texts: texts of the domain, such as its corpus; an even sample is read.
        domain: names a lexicon or a background, where there is one.
        guard: the guard data of `evaluate`.
        seed: of the topics.

    Returns:
        A vocabulary; it has no terms where there is nothing to extract them from, which `origin` says.

    Raises:
        DataError: the lexicon or the background cannot be read.
    """
    size = domain.lexicon_size
    if domain.lexicon is not None:
        entries = read_lexicon(Path(domain.lexicon))
        defined = {term: definitions for term, definitions in entries.items() if definitions}
        return Vocabulary(Lexicon(entries), f"given: {domain.lexicon}", defined)
    few = sample(texts)
    if len(few) < FEW_TEXTS:
        return Vocabulary(
            Lexicon(()), f"none: {counted(len(few), 'texts')} {are(len(few))} too few to extract terms from"
        )
    background, sources = _background(few, domain, guard)
    if background:
        terms = extract_terms(few, background, count=size)
        return Vocabulary(Lexicon(terms), f"extracted from the corpus against {', '.join(sources)}")
    topics: defaultdict[int, list[str]] = defaultdict(list)
    for text, topic in zip(few, lexical_topics(tuple(few), seed), strict=False):
        topics[topic].append(text)
    terms = topic_terms(list(topics.values()), count=size)
    return Vocabulary(Lexicon(terms), f"extracted from the corpus, {len(topics)} topics of it against one another")


def sample(texts: Sequence[str]) -> list[str]:
    """Distinct texts at even distances: at most `MAX_TEXTS`, and about `MAX_CHARS`."""
    distinct = list(dict.fromkeys(texts))
    few = evenly(distinct, MAX_TEXTS)
    chars = sum(map(len, few))
    return few if chars <= MAX_CHARS else evenly(few, max(1, len(few) * MAX_CHARS // chars))


def _background(texts: Sequence[str], domain: DomainConfig, guard: Sequence[str]) -> tuple[list[str], list[str]]:
    """The background's texts and the names of their sources; guard data in another script is left out."""
    script = next(iter(languages(texts)), "")
    background: list[str] = []
    names: list[str] = []
    for source in background_sources(domain, guard):
        others = sample(texts_of_source(source))
        if domain.background is not None or next(iter(languages(others)), "") == script:
            background += others
            names.append(Path(source).name or source)
    return background, names
