"""Results of queries that mean the same: what is served, what is learned, what is forgotten."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from acclimate.core.error_model import LEAST_COMPARISONS
from acclimate.retrieval.semantic_cache import SemanticCache, upper_bound

SCOPE, EPOCH = "scope", 1


def unit(*values: float) -> np.ndarray:
    vector = np.zeros(16, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def near(vector: np.ndarray, distance: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=len(vector))
    noise -= noise @ vector * vector
    moved = vector + distance * noise / np.linalg.norm(noise)
    return (moved / np.linalg.norm(moved)).astype(np.float32)


def cache(**settings: Any) -> SemanticCache[str]:
    return SemanticCache(lambda one, other: one == other, **{"seed": 1, **settings})


def ask(kept: SemanticCache[str], vector: np.ndarray, result: str, text: str = "q", scope: Any = SCOPE) -> bool:
    """Ask, compute what is not served, and say whether it was served."""
    found = kept.look(scope, EPOCH, text, vector)
    if found is not None and found.serves:
        return True
    kept.computed(scope, EPOCH, text, vector, result, found)
    return False


def test_a_cold_entry_never_serves_and_a_warm_one_does() -> None:
    kept, place = cache(), unit(1, 1, -1, 1)
    served = [ask(kept, near(place, 0.2, seed), "right") for seed in range(400)]
    assert not any(served[: LEAST_COMPARISONS + 1]) and sum(served[200:]) > 100
    assert len(kept) == 1 and kept.counts.hits == sum(served)
    assert kept.counts.shadows == 400 - 1 - sum(served)


def test_an_entry_that_was_wrong_gets_a_neighbour_and_does_not_serve_there() -> None:
    kept, place = cache(), unit(1, 1, -1, 1)
    draw = random.Random(1)
    for seed in range(300):
        wrong = draw.random() < 0.5
        served = ask(kept, near(place, 0.2, seed), "wrong" if wrong else "right")
        assert not served or seed > 20
    assert kept.counts.hits <= 3, "half of what is near has another result"


def test_the_true_cosine_decides_among_the_nominated() -> None:
    """Two entries with the same sign bits."""
    kept = cache()
    for vector, result in ((unit(9, 1, 1), "far"), (unit(1, 1, 1), "near")):
        ask(kept, vector, result)  # the second differs from the first, and so becomes an entry too
    found = kept.look(SCOPE, EPOCH, "q", unit(1, 1, 0.9))
    assert found is not None and found.entry.result == "near"
    assert found.similarity == pytest.approx(float(unit(1, 1, 1) @ unit(1, 1, 0.9)))


def test_nothing_is_shared_between_scopes_and_epochs() -> None:
    kept, place = cache(), unit(1, 2)
    for seed in range(300):
        ask(kept, near(place, 0.1, seed), "right")
    for scope, epoch in (("other", EPOCH), (SCOPE, 2)):
        assert kept.look(scope, epoch, "q", place) is None
    assert kept.look(SCOPE, EPOCH, "q", place) is None, "the epoch was another one meanwhile: all is forgotten"


def test_what_was_computed_in_an_older_epoch_is_not_kept() -> None:
    kept, place = cache(), unit(1, 2)
    assert kept.look(SCOPE, 1, "q", place) is None
    assert kept.look(SCOPE, 2, "q", place) is None
    kept.computed(SCOPE, 1, "q", place, "old", None)
    assert kept.look(SCOPE, 2, "q", place) is None and len(kept) == 0


def test_a_veto_keeps_an_entry_from_serving_and_from_learning() -> None:
    kept, place = cache(), unit(1, 2)
    for seed in range(300):
        ask(kept, near(place, 0.1, seed), "right", "trains from Rome to Oslo")
    shadows = kept.counts.shadows
    assert kept.look(SCOPE, EPOCH, "trains from Oslo to Rome", place) is None
    assert (kept.counts.vetoed, kept.counts.shadows) == (1, shadows)
    found = kept.look(SCOPE, EPOCH, "trains from Rome to Oslo", place)
    assert found is not None and found.chance > 0.9


def test_audits_are_counted_with_their_bound() -> None:
    kept, place = cache(), unit(1, 2)
    for seed in range(200):
        ask(kept, near(place, 0.1, seed), "right")
    found = kept.look(SCOPE, EPOCH, "q", place)
    assert found is not None and kept.counts.bound == 1.0
    assert kept.audit(found, "right") and not kept.audit(found, "another")
    assert (kept.counts.audited, kept.counts.false_hits) == (2, 1)
    assert kept.counts.bound == pytest.approx(float(beta.ppf(0.95, 2, 1)))
    before = found.entry.chance(1.0)
    kept.audit(found, "another")
    assert found.entry.chance(1.0) < before and found.entry.comparisons == kept.counts.shadows + 3


def test_memory_is_bounded() -> None:
    kept = cache(max_entries=20)
    for number in range(100):
        ask(kept, near(unit(1, 2), 3.0, number), f"result {number}", scope=number % 3)
        assert len(kept) <= 20
    alone = cache(max_entries=8)
    for number in range(50):
        ask(alone, near(unit(1, 2), 3.0, number), f"result {number}")
        assert len(alone) <= 8
    last = alone.look(SCOPE, EPOCH, "q", near(unit(1, 2), 3.0, 49))
    assert last is not None and last.entry.result == "result 49"


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.5, 0.99))
def test_the_bound_is_clopper_and_pearsons(wrong: int, more: int, confidence: float) -> None:
    count = wrong + more
    bound = upper_bound(wrong, count, confidence)
    if not more:
        assert bound == 1.0
    else:
        assert wrong / count <= bound <= 1.0 or confidence == 0.5
        assert binom.cdf(wrong, count, bound) == pytest.approx(1 - confidence, abs=1e-6)
