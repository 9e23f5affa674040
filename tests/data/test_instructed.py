"""Descriptions before queries: which texts a task asks, with which wordings, and that relevance stays what it was."""

from __future__ import annotations

import numpy as np

from acclimate.data.instructed import instructed_library
from acclimate.data.relevance import RelevanceTask, TaskLibrary

QUERIES, DOCUMENTS = ("red horse", "blue wolf", "red wolf"), ("horses", "wolves", "blue things")
ANIMAL = RelevanceTask("animal", ("same animal",), np.array([0, 1, 1]), np.array([0, 1, -1]))
COLOUR = RelevanceTask("colour", ("same colour", "colour"), np.array([0, 1, 0]), np.array([-1, -1, 1]))
LIBRARY = TaskLibrary(QUERIES, DOCUMENTS, (ANIMAL, COLOUR))


def test_every_task_asks_its_own_texts() -> None:
    made = instructed_library(LIBRARY, [np.array([2, 0]), np.array([1])], seed=0)
    animal, colour = made.tasks
    assert made.queries[:2] == ("same animal red wolf", "same animal red horse")
    assert made.queries[2] in ("same colour blue wolf", "colour blue wolf")
    assert animal.usable.tolist() == [0, 1] and colour.usable.tolist() == [2]
    assert made.documents == DOCUMENTS


def test_relevance_follows_the_query_within() -> None:
    made = instructed_library(LIBRARY, [np.array([2, 0]), np.array([1])], seed=0)
    animal, colour = made.tasks
    assert animal.relevant([0, 1], [0, 1, 2]).tolist() == [[False, True, False], [True, False, False]]
    # What another definition calls relevant to a text of the first task can still be drawn as misleading.
    assert colour.draw_relevant(np.array([2]), np.random.default_rng(0)).tolist() == [2]
    assert animal.draw_relevant(np.array([2]), np.random.default_rng(0)).tolist() == [1]
