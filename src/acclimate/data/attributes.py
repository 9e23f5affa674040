"""A synthetic family of tasks: texts with K attributes, and "relevant" means that some of these agree.

Every text names one value of each attribute; a task is a set of attributes. Which set it is, a text alone cannot say:
only a description, or pairs. So a generator that ignores its condition can be no better than one adapter for all
tasks, and sets that were never trained on show whether it has learned the attributes or the tasks.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from acclimate.data.relevance import Keys, RelevanceTask, TaskLibrary

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": ("red", "blue", "green", "yellow", "black", "white"),
    "animal": ("horse", "eagle", "salmon", "spider", "wolf", "snake"),
    "season": ("spring", "summer", "autumn", "winter", "monsoon", "harvest"),
    "profession": ("nurse", "carpenter", "lawyer", "baker", "pilot", "painter"),
    "country": ("Japan", "Brazil", "Norway", "Egypt", "Canada", "India"),
    "instrument": ("piano", "violin", "trumpet", "drums", "guitar", "flute"),
}
"""Attribute -> its values."""
MAX_TOGETHER = 3
"""Most attributes that a task is about."""
HELD_OUT = 11
WORDINGS = (
    "A document is relevant if it has the same {all}.",
    "Match texts by {all}.",
    "Find documents that agree with the query in {all}.",
    "Only the {all} must be the same; ignore everything else.",
    "Same {all}.",
    "Texts belong together when their {all} are equal.",
    "Retrieve passages about the same {all}.",
    "What counts is the {all}.",
)
"""Descriptions of a task; `{all}` are its attributes."""
SENTENCES = (
    "In {season}, a {profession} from {country} with a {colour} {animal} played the {instrument}.",
    "The {animal} was {colour}; the {instrument} belonged to a {profession} in {country}, in {season}.",
    "A {colour} {animal} listened to the {instrument} of the {profession} during the {season} in {country}.",
    "{country}: {profession}, {instrument}, {season}, {animal}, {colour}.",
)


class Split(NamedTuple):
    """Names of tasks to train on, and of those that are held out."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


def attribute_tasks(queries: int, documents: int, seed: int) -> TaskLibrary:
    """Draw texts with a value of each attribute, and make a task of every set of one to three attributes (41 of them).

    Args:
        queries: number of queries.
        documents: number of documents.
        seed: of the texts; tasks, names and descriptions are the same for any.
    """
    generator = np.random.default_rng(seed)
    names = list(ATTRIBUTES)
    sizes = [len(ATTRIBUTES[name]) for name in names]
    query_values, document_values = (generator.integers(sizes, size=(n, len(names))) for n in (queries, documents))
    tasks = [
        RelevanceTask(
            "+".join(names[place] for place in together),
            tuple(wording.format(all=" and ".join(names[place] for place in together)) for wording in WORDINGS),
            _keys(query_values, together),
            _keys(document_values, together),
        )
        for count in range(1, MAX_TOGETHER + 1)
        for together in combinations(range(len(names)), count)
    ]
    return TaskLibrary(_texts(query_values, generator), _texts(document_values, generator), tuple(tasks))


def split_tasks(library: TaskLibrary, seed: int) -> Split:
    """Hold out eleven combinations; every attribute alone is trained on."""
    names = [task.name for task in library.tasks]
    combined = [name for name in names if "+" in name]
    chosen = set(np.random.default_rng(seed).choice(combined, HELD_OUT, replace=False).tolist())
    return Split(tuple(name for name in names if name not in chosen), tuple(name for name in names if name in chosen))


def _keys(values: Keys, together: tuple[int, ...]) -> Keys:
    keys = np.zeros(len(values), np.int64)
    for place in together:
        keys = keys * len(tuple(ATTRIBUTES.values())[place]) + values[:, place]
    return keys


def _texts(values: Keys, generator: np.random.Generator) -> tuple[str, ...]:
    sentences = generator.integers(len(SENTENCES), size=len(values))
    texts = []
    for row, sentence in zip(values.tolist(), sentences.tolist(), strict=True):
        words = {name: ATTRIBUTES[name][value] for name, value in zip(ATTRIBUTES, row, strict=True)}
        texts.append(SENTENCES[sentence].format(**words))
    return tuple(texts)
