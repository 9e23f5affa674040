"""Candidates measured on pairs that they have not seen: which pairs are left out together, and what is encoded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from torch import Tensor

from acclimate.evaluation.leaving_out import PARTS, left_out, ranker
from acclimate.models.hypernetwork.candidates import CLOSED_FORM, GENERATED, MULTI_TASK, Candidates, without
from acclimate.models.hypernetwork.condition import ConditionVectors
from acclimate.types import Sides

PAIRS = [(f"q{number}", f"d{number}") for number in range(10)]


class Weighing:
    """Candidates whose weights are the queries that they were made of."""

    def __init__(self, sides: Sides) -> None:
        self.trained = SimpleNamespace(sides=sides)

    def weights(self, name: str, vectors: ConditionVectors) -> Any:
        return None if name == MULTI_TASK or vectors.query_PD is None else frozenset(vectors.query_PD[:, 0].tolist())


def vectors(count: int = 10) -> ConditionVectors:
    rows = np.repeat(np.arange(count, dtype=np.float32)[:, None], 3, 1)
    return ConditionVectors(query_PD=rows, document_PD=rows)


def test_which_pairs_are_left_out_together() -> None:
    query, both = (cast(Candidates, Weighing(sides)) for sides in ("query", "both"))
    assert left_out(query, GENERATED, 10, 3) == left_out(query, CLOSED_FORM, 10, 3) == (3,)
    assert left_out(query, MULTI_TASK, 10, 3) == left_out(both, MULTI_TASK, 10, 3) == tuple(range(10))
    parts = [left_out(both, GENERATED, 10, number) for number in range(10)]
    assert left_out(both, CLOSED_FORM, 10, 3) == parts[3]  # as many pairs as what it is compared with
    assert len(set(parts)) == PARTS and max(map(len, parts)) == 3
    assert all(number in part for number, part in enumerate(parts))
    assert [left_out(both, GENERATED, 2, number) for number in range(2)] == [(0,), (1,)]


@pytest.mark.parametrize("sides", ["query", "both"])
def test_nobody_ranks_for_a_pair_that_it_was_made_of(sides: Sides) -> None:
    made: list[tuple[Any, tuple[int, ...]]] = []

    def encoded(weights: dict[str, tuple[Tensor, Tensor]] | None, numbers: tuple[int, ...]) -> Any:
        made.append((weights, numbers))
        return vectors().query_PD[list(numbers)], np.zeros((4, 3), np.float32)  # type: ignore[index]

    candidates = cast(Candidates, Weighing(sides))
    rank = ranker(candidates, GENERATED, vectors(), PAIRS, encoded)
    for number in range(10):
        query_D, document_XD = rank(number)
        assert query_D[0] == number and document_XD.shape == (4, 3)
    assert len(made) == (10 if sides == "query" else PARTS)
    for weights, numbers in made:
        assert weights == frozenset(range(10)) - frozenset(numbers)


def test_pairs_that_share_a_text_are_left_out_too() -> None:
    pairs = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z"), ("c", "w")]
    rest = without(vectors(5), pairs, [0])
    assert rest.query_PD is not None and rest.query_PD[:, 0].tolist() == [3, 4]
    rest = without(vectors(5), pairs, [0, 4])
    assert rest.query_PD is not None and rest.query_PD[:, 0].tolist() == [3]
    assert without(vectors(5), pairs, [0, 3, 4]).query_PD is None
