"""Definitions of relevance over the texts of a collection, described in words, and the tasks that they make.

A definition is one attribute, or several that all have to agree: what the text is about, how it is put, how long it
is, what answers it, where it comes from. Every text has a key of each attribute. A negative that has all but one of
them right is what another definition calls relevant, and is drawn as such (`training.task_draws`).

A family is one side against another over one collection: queries against documents, queries among themselves,
documents among themselves. Shapes: N queries, M documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np

from acclimate.core.analyser import words
from acclimate.data.collections import Collection
from acclimate.data.descriptions import ASKED, ATTRIBUTES, Attribute, Language, described, domain_described
from acclimate.data.relevance import ABSENT, Keys

MOST_TOGETHER = 3
ALONE = ("answer",)
"""Attributes that are not combined: what answers a query has its topic too."""
NEVER_TOGETHER = {frozenset({"theme", "topic"})}
"""One is a part of the other."""
FEWEST_HOLDERS = 6
"""A word counts as a key where at least so many texts have it."""
COMMON = 0.05
"""A word that more than this share of the texts holds names nothing particular."""
LENGTHS = 5
"""Classes of length, of equally many texts."""
FEWEST_QUERIES = {"train": 40, "test": 15}
"""A task needs so many queries with a relevant document."""
FEWEST_KEYS = 3
LARGEST_SHARE = 0.5
"""A definition by which a query's mean share of relevant documents is larger says nothing."""

DOMAIN = "domain"
"""How the definitions that are a theme begin."""

Part: TypeAlias = Literal["train", "test"]
PARTS: tuple[Part, ...] = ("train", "test")


@dataclass(frozen=True, eq=False)
class Definition:
    """One definition of relevance over a family's texts."""

    name: str
    """Its attributes, joined by "+"; of a domain the answer within it."""
    descriptions: Mapping[Language, tuple[str, ...]]
    """To train with."""
    asked: tuple[str, ...]
    """To test with, in the first language."""
    query: Mapping[Part, Keys]
    document: Mapping[Part, Keys]


@dataclass(frozen=True, eq=False)
class Family:
    """Two sets of texts, and definitions of which of the one are relevant to which of the other."""

    name: str
    collection: str
    queries: Mapping[Part, tuple[str, ...]]
    documents: Mapping[Part, tuple[str, ...]]
    definitions: tuple[Definition, ...]


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a collection: texts, their keys by attribute, and which are for the test."""

    texts: tuple[str, ...]
    keys: Mapping[Attribute, Keys]
    test_N: np.ndarray

    def where(self, kept_N: np.ndarray) -> Side:
        """Return the side with some of its texts."""
        texts = tuple(text for text, kept in zip(self.texts, kept_N.tolist(), strict=True) if kept)
        return Side(texts, {name: keys[kept_N] for name, keys in self.keys.items()}, self.test_N[kept_N])

    def part(self, part: Part) -> Side:
        """Return the texts of one part."""
        return self.where(self.test_N if part == "test" else ~self.test_N)


def families(
    collection: Collection,
    themes: Sequence[int],
    topics: Sequence[int],
    seed: int,
    *,
    domains: int = 0,
    languages: Sequence[Language] = ("en",),
) -> list[Family]:
    """Make the families of a collection with all definitions for which there are enough texts.

    Args:
        collection: its texts.
        themes: coarse cluster of every query, then of every document; empty where they cannot be clustered.
        topics: fine cluster of the same.
        seed: halves a side that is searched by itself.
        domains: number of the largest themes that become a task of their own: what answers a query within it.
        languages: of the descriptions; tests ask in the first.
    """
    count = len(collection.queries)
    keys = attribute_keys((*collection.queries, *collection.documents))
    keys |= {name: np.asarray(found, np.int64) for name, found in (("theme", themes), ("topic", topics)) if len(found)}  # type: ignore[misc]
    if any(groups := (*collection.query_groups, *collection.document_groups)):
        keys["group"] = _numbered(groups)
    queries = Side(
        collection.queries,
        {**{name: found[:count] for name, found in keys.items()}, "answer": collection.query_answer_N},
        collection.query_test_N,
    )
    documents = Side(
        collection.documents,
        {**{name: found[count:] for name, found in keys.items()}, "answer": collection.document_answer_M},
        collection.document_test_M,
    )
    generator = np.random.default_rng(seed)
    sides: list[tuple[str, Side, Side]] = [("queries to documents", queries, documents)]
    for name, side in (("queries", queries), ("documents", documents)):
        half_N = generator.random(len(side.texts)) < 0.5
        sides.append((f"{name} to {name}", side.where(half_N), side.where(~half_N)))
    found = []
    for name, asking, searched in sides:
        family = f"{collection.name}, {name}"
        definitions = _definitions(asking, searched, languages)
        if searched is documents:
            definitions += _domains(asking, searched, domains, languages)
        if definitions:
            texts, documents_of = ({part: side.part(part).texts for part in PARTS} for side in (asking, searched))
            found.append(Family(family, collection.name, texts, documents_of, tuple(definitions)))
    return found


def attribute_keys(texts: Sequence[str]) -> dict[Attribute, Keys]:
    """Find the keys of the attributes that the words of a text decide.

    Args:
        texts: of both sides of a collection: keys are the same for both.
    """
    worded = [words(text) for text in texts]
    holders = Counter(word for found in worded for word in set(found))
    particular = {word for word, count in holders.items() if FEWEST_HOLDERS <= count <= COMMON * len(texts)}
    rarest = [
        min((word for word in found if word in particular and word.isalpha()), key=lambda word: (holders[word], word))
        if any(word in particular and word.isalpha() for word in found)
        else ""
        for found in worded
    ]
    length_N = np.array([len(found) for found in worded])
    borders = np.quantile(length_N, np.arange(1, LENGTHS) / LENGTHS)
    return {
        "entity": _numbered(rarest),
        "opening": _numbered([found[0] if found else "" for found in worded]),
        "ending": _numbered([found[-1] if found else "" for found in worded]),
        "length": np.searchsorted(borders, length_N, side="left").astype(np.int64),
    }


def _numbered(values: Sequence[str]) -> Keys:
    """A number for each value that enough texts have, the others being absent."""
    common = [value for value, count in Counter(values).items() if value and count >= FEWEST_HOLDERS]
    numbers = {value: number for number, value in enumerate(sorted(common))}
    return np.array([numbers.get(value, ABSENT) for value in values], np.int64)


def _definitions(asking: Side, searched: Side, languages: Sequence[Language]) -> list[Definition]:
    names: list[Attribute] = [name for name in ATTRIBUTES if name in asking.keys]
    combined = [name for name in names if name not in ALONE]
    chosen: list[tuple[Attribute, ...]] = [(name,) for name in names]
    for count in range(2, MOST_TOGETHER + 1):
        chosen += [
            together
            for together in combinations(combined, count)
            if not any(pair <= set(together) for pair in NEVER_TOGETHER)
        ]
    found = []
    for attributes in chosen:
        wordings = {language: described(attributes, language) for language in languages}
        query, document = _together(asking, searched, attributes)
        definition = Definition(
            "+".join(attributes),
            {language: texts[:-ASKED] for language, texts in wordings.items()},
            wordings[languages[0]][-ASKED:],
            _parts(asking, query),
            _parts(searched, document),
        )
        if _is_usable(definition):
            found.append(definition)
    return found


def _domains(asking: Side, searched: Side, count: int, languages: Sequence[Language]) -> list[Definition]:
    """Tasks of the largest themes: the answer to a query, among the theme's own documents."""
    if "theme" not in searched.keys:
        return []
    themes = np.concatenate([asking.keys["theme"], searched.keys["theme"]])
    largest = [theme for theme, _ in Counter(themes.tolist()).most_common(count)]
    everything = Counter(word for text in (*asking.texts, *searched.texts) for word in set(words(text)))
    found = []
    for number, theme in enumerate(largest):
        sides = [np.where(side.keys["theme"] == theme, side.keys["answer"], ABSENT) for side in (asking, searched)]
        inside = [
            text for text, own in zip(searched.texts, searched.keys["theme"].tolist(), strict=True) if own == theme
        ]
        holders = Counter(word for text in inside for word in set(words(text)) if word.isalpha())
        terms = sorted(holders, key=lambda word: (-holders[word] / (everything[word] + 20), word))[:4]
        wordings = {language: domain_described(terms, language) for language in languages}
        query, document = _parts(asking, sides[0]), _parts(searched, sides[1])
        definition = Definition(
            f"{DOMAIN} {number + 1}",
            {language: texts[:-1] for language, texts in wordings.items()},
            wordings[languages[0]][-1:],
            query,
            document,
        )
        if _is_usable(definition):
            found.append(definition)
    return found


def is_domain(definition: str) -> bool:
    """Whether a definition is what answers a query within one theme."""
    return definition.startswith(f"{DOMAIN} ")


def _together(asking: Side, searched: Side, attributes: Sequence[Attribute]) -> tuple[Keys, Keys]:
    """One key for several attributes; absent where one of them is."""
    rows = [np.stack([side.keys[name] for name in attributes], 1) for side in (asking, searched)]
    both = np.concatenate(rows)
    numbers = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
    keys = np.where((both == ABSENT).any(1), ABSENT, numbers).astype(np.int64)
    return keys[: len(rows[0])], keys[len(rows[0]) :]


def _parts(side: Side, keys_N: Keys) -> dict[Part, Keys]:
    return {"train": keys_N[~side.test_N], "test": keys_N[side.test_N]}


def _is_usable(definition: Definition) -> bool:
    """Whether there are enough queries with a relevant document in both parts, and not too many documents of one."""
    for part in PARTS:
        query_N, document_M = definition.query[part], definition.document[part]
        answered_N = query_N[np.isin(query_N, document_M) & (query_N != ABSENT)]
        if len(answered_N) < FEWEST_QUERIES[part] or len(np.unique(answered_N)) < FEWEST_KEYS:
            return False
        sizes = Counter(document_M.tolist())
        if np.mean([sizes[key] for key in answered_N.tolist()]) > LARGEST_SHARE * len(document_M):
            return False
    return True
