"""Several data sets in one corpus: what a service over all of them has to find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly
from acclimate.errors import UsageError
from acclimate.types import Corpus, Qrels, Queries

SetKind: TypeAlias = Literal["own", "outside", "spanning"]
"""own: test queries of an expert's data. outside: of data that no expert was trained for. spanning: two of different
experts, joined into one query that asks for the documents of both."""


class NamedData(NamedTuple):
    """A data set with a test split, and whose it is."""

    name: str
    data: Dataset
    expert: str | None
    """The expert that was trained on its train split; None: no one was."""


@dataclass(frozen=True, slots=True)
class AskedSet:
    """Test queries over the pooled corpus."""

    name: str
    kind: SetKind
    expert: str | None
    """Who should answer; None: the base, or, of spanning queries, no one alone."""
    queries: Queries
    qrels: Qrels


@dataclass(frozen=True, slots=True)
class Pool:
    """One corpus, and all that is asked of it."""

    corpus: Corpus
    """`SET/ID` -> text; a text that several sets have is one document."""
    sets: tuple[AskedSet, ...]


def pool_sets(sets: Sequence[NamedData], *, limit: int | None, spanning: int, seed: int) -> Pool:
    """Put data sets into one corpus.

    Args:
        sets: retrieval data with test queries.
        limit: at most so many queries of each.
        spanning: how many queries are joined of two experts' sets, over all pairs of experts together.
        seed: fixes which.

    Raises:
        UsageError: one of them holds labelled pairs.
    """
    corpus: Corpus = {}
    by_text: dict[str, str] = {}
    asked = []
    for name, data, expert in sets:
        if data.kind == "pairs":
            raise UsageError(f"{name} holds labelled pairs, no documents to rank", possible="retrieval data")
        for document, text in data.corpus.items():
            if text not in by_text:
                by_text[text] = f"{name}/{document}"
                corpus[by_text[text]] = text
        kind: SetKind = "outside" if expert is None else "own"
        judged = data.qrels.get("test", {})
        usable = [query for query, grades in judged.items() if any(grade > 0 for grade in grades.values())]
        chosen = evenly(usable, len(usable) if limit is None else limit)
        queries = {f"{name}/{query}": data.queries[query] for query in chosen}
        qrels = {f"{name}/{query}": _pooled(judged[query], name, data, by_text) for query in chosen}
        asked.append(AskedSet(name, kind, expert, queries, qrels))
    own = [one for one in asked if one.kind == "own"]
    return Pool(corpus, (*asked, *_spanning(own, spanning, seed)))


def _pooled(grades: dict[str, int], name: str, data: Dataset, by_text: dict[str, str]) -> dict[str, int]:
    """One query's judgements, by the ids of the pool."""
    found: dict[str, int] = {}
    for document, grade in grades.items():
        known = document in data.corpus
        identifier = by_text[data.corpus[document]] if known else f"{name}/{document}"
        found[identifier] = max(grade, found.get(identifier, grade))
    return found


def _spanning(own: Sequence[AskedSet], count: int, seed: int) -> list[AskedSet]:
    """Queries of two sets, one behind the other in a drawn order; each query is in one pair of sets once, at most."""
    generator = np.random.default_rng(seed)
    pairs = [pair for pair in combinations(own, 2) if pair[0].expert != pair[1].expert]
    if not pairs or not count:
        return []
    queries: Queries = {}
    qrels: Qrels = {}
    for first, second in pairs:
        size = min(-(-count // len(pairs)), len(first.queries), len(second.queries))
        drawn = [generator.permutation(sorted(one.queries))[:size].tolist() for one in (first, second)]
        for one, other in zip(*drawn, strict=True):
            texts = [first.queries[one], second.queries[other]]
            if generator.random() < 0.5:
                texts.reverse()
            queries[f"{one}+{other}"] = " ".join(texts)
            qrels[f"{one}+{other}"] = {**first.qrels[one], **second.qrels[other]}
    return [AskedSet("spanning two", "spanning", None, queries, qrels)]
