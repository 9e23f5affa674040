"""Definitions of relevance over shared texts, and the synthetic family of attributes."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.data.attributes import ATTRIBUTES, HELD_OUT, attribute_tasks, split_tasks
from acclimate.data.relevance import RelevanceTask, TaskLibrary
from acclimate.errors import DataError

QUERY, DOCUMENT = np.array([0, 1, -1, 7]), np.array([1, 0, 1, -1, 2])


def task(**changes: object) -> RelevanceTask:
    return RelevanceTask(**{"name": "t", "descriptions": ("d",), "query_N": QUERY, "document_M": DOCUMENT} | changes)  # type: ignore[arg-type]


def test_equal_keys_are_relevant_by_hand() -> None:
    one = task()
    assert one.usable.tolist() == [0, 1]  # the third takes no part, the fourth has no document
    assert one.relevant([0, 1, 2, 3], range(5)).astype(int).tolist() == [
        [0, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],  # -1 is no key: it equals none, not even another -1
        [0, 0, 0, 0, 0],
    ]
    assert one.qrels([1]) == {"1": {"0": 1, "2": 1}}
    drawn = [one.draw_relevant(np.arange(4), np.random.default_rng(seed)) for seed in range(30)]
    assert {tuple(row.tolist()) for row in drawn} == {(1, 0, -1, -1), (1, 2, -1, -1)}


def test_a_task_without_relevant_documents_or_description_is_refused() -> None:
    with pytest.raises(DataError, match="the task t has no query with a relevant document"):
        task(query_N=np.array([5]))
    with pytest.raises(DataError, match="the task t has no description"):
        task(descriptions=())
    with pytest.raises(DataError, match="keys of 4 queries and 5 documents, the library 4 and 2"):
        TaskLibrary(("a", "b", "c", "d"), ("e", "f"), (task(),))


def test_texts_name_what_their_keys_say() -> None:
    library = attribute_tasks(60, 300, seed=3)
    assert len(library.tasks) == 6 + 15 + 20
    by_name = {one.name: one for one in library.tasks}
    for name in ("animal", "colour+country", "colour+season+instrument"):
        values = [
            tuple(next(value for value in ATTRIBUTES[part] if value in text) for part in name.split("+"))
            for text in (*library.queries, *library.documents)
        ]
        queries, documents = values[:60], values[60:]
        expected = [[query == document for document in documents] for query in queries]
        assert by_name[name].relevant(range(60), range(300)).tolist() == expected
        assert all(all(part in text for part in name.split("+")) for text in by_name[name].descriptions)


def test_no_value_is_part_of_another_word() -> None:
    words = [value for values in ATTRIBUTES.values() for value in values]
    assert len(set(words)) == len(words)
    assert not [(a, b) for a in words for b in words if a != b and a in b]


def test_held_out_combinations_are_made_of_attributes_that_are_trained_on() -> None:
    library = attribute_tasks(300, 300, seed=0)
    split = split_tasks(library, seed=1)
    assert (len(split.trained), len(split.held_out)) == (30, HELD_OUT)
    assert set(ATTRIBUTES) <= set(split.trained)
    assert not set(split.trained) & set(split.held_out)
    assert library.only(split.held_out).tasks[0].name == split.held_out[0]
