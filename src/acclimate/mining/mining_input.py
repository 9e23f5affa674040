"""What mining needs of a dataset: its queries, its documents, and what is known about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acclimate.core.same_text import text_id
from acclimate.data.dataset import Dataset, held_out
from acclimate.data.held_out import HeldOut
from acclimate.retrieval.own_documents import own_documents
from acclimate.types import Example


@dataclass(frozen=True, slots=True)
class MiningInput:
    """Queries, documents and what is known about them; a text is named by its place in `documents`."""

    documents: list[str]
    """The corpus in its own order, then positives that it lacks, then given negatives that it lacks."""
    positives: dict[str, list[int]]
    """Training query (text) -> its positives."""
    given: dict[str, list[int]]
    """Training query (text) -> negatives that the data brought."""
    held_out: HeldOut
    """Dev and test queries, which are never mined, and what is judged for them, which is no given negative."""
    excluded: NDArray[np.bool_]
    """[M] True for documents that are never mined: held out, the same as an earlier one, or known as given negatives
    only."""
    first: NDArray[np.int64]
    """[M] place of the first document that is the same text."""
    same_as: dict[str, int]
    """Training query (text) -> place of the first document that is the same text, if there is one."""
    own: dict[str, list[int]]
    """Training query (text) -> documents that have its id, and so are the query itself (`retrieval.own_documents`)."""
    held_out_documents: int
    """How many documents are never mined because they are dev or test queries."""
    examples: dict[str, list[Example]]
    """Training query (text) -> its rows, without those given negatives that are positives or held out."""
    dropped: int
    """How many given negatives were left out of `examples`."""


def mining_input(dataset: Dataset) -> MiningInput:
    """Take what mining needs from a retrieval dataset.

    Queries with equal texts are one query, with the positives of all. Positives come from the training rows and
    from the training judgements.

    Args:
        dataset: what `prepare` wrote.
    """
    documents = list(dataset.corpus.values())
    index_of: dict[str, int] = {}
    for index, text in enumerate(documents):
        index_of.setdefault(text, index)
    positives: dict[str, dict[int, None]] = {}
    given: dict[str, list[int]] = {}
    for example in dataset.examples:
        if example.positive not in index_of:
            index_of[example.positive] = len(documents)
            documents.append(example.positive)
        positives.setdefault(example.anchor, {})[index_of[example.positive]] = None
    for query_id, grades in dataset.qrels.get("train", {}).items():
        if (known := positives.get(dataset.queries[query_id])) is not None:
            known.update((index_of[dataset.corpus[document]], None) for document, grade in grades.items() if grade > 0)
    minable = len(documents)
    for text in dict.fromkeys(
        text for example in dataset.examples for text in example.negatives if text not in index_of
    ):
        index_of[text] = len(documents)
        documents.append(text)
    for example in dataset.examples:
        given.setdefault(example.anchor, []).extend(index_of[text] for text in dict.fromkeys(example.negatives))
    keys = [text_id(text) for text in documents]
    first_of = {key: place for place, key in reversed(list(enumerate(keys)))}
    first = np.array([first_of[key] for key in keys], np.int64)
    held = held_out(dataset)
    is_held = np.array([held.excludes(text, "mined") for text in documents], np.bool_)
    place = np.arange(len(documents))
    known_lists = {query: list(known) for query, known in positives.items()}
    own = _own(dataset)
    examples, dropped = _examples_by_query(dataset.examples, documents, known_lists, own, held)
    return MiningInput(
        documents=documents,
        positives=known_lists,
        given=given,
        held_out=held,
        excluded=(place >= minable) | (first != place) | is_held,
        first=first,
        same_as={query: first_of[key] for query in known_lists if (key := text_id(query)) in first_of},
        own=own,
        held_out_documents=int(is_held[:minable].sum()),
        examples=examples,
        dropped=dropped,
    )


def _own(dataset: Dataset) -> dict[str, list[int]]:
    place_of = {document: place for place, document in enumerate(dataset.corpus)}
    train = dataset.qrels.get("train", {})
    own: dict[str, list[int]] = {}
    for query_id in sorted(own_documents(train, dataset.corpus, train)):
        own.setdefault(dataset.queries[query_id], []).append(place_of[query_id])
    return own


def _examples_by_query(
    examples: Iterable[Example],
    documents: list[str],
    positives: dict[str, list[int]],
    own: dict[str, list[int]],
    held: HeldOut,
) -> tuple[dict[str, list[Example]], int]:
    """Group training examples by query, without given negatives that are positives, the query or held out (counted)."""
    by_query: dict[str, list[Example]] = {}
    dropped = 0
    for example in examples:
        known = (*positives[example.anchor], *own.get(example.anchor, ()))
        never = {text_id(documents[index]) for index in known} | {text_id(example.anchor)}
        negatives = tuple(
            text for text in example.negatives if text_id(text) not in never and not held.excludes(text, "negative")
        )
        dropped += len(example.negatives) - len(negatives)
        by_query.setdefault(example.anchor, []).append(replace(example, negatives=negatives, scores=None))
    return by_query, dropped
