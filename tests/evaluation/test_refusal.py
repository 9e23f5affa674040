"""The score below which nothing is answered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from acclimate.evaluation.refusal import bound_of_quantile, choose_refusal
from acclimate.retrieval.answers import Refusal
from acclimate.retrieval.index.records import Document, Hit


def test_by_hand() -> None:
    """Of 29 scores the highest is above the 90 % quantile with probability 1 - 0.9^29 = 0.953; of 28 it is 0.948."""
    assert bound_of_quantile(list(range(29)), 0.9, 0.95) == 28
    assert bound_of_quantile(list(range(28)), 0.9, 0.95) is None
    assert bound_of_quantile([], 0.9, 0.95) is None
    assert bound_of_quantile([3.0, 1.0, 2.0], 0.5, 0.5) == 2.0


@given(st.integers(1, 400), st.floats(0.05, 0.98), st.floats(0.5, 0.99))
def test_against_the_binomial_distribution(count: int, share: float, confidence: float) -> None:
    below = binom.cdf(np.arange(count), count, share)
    found = bound_of_quantile([float(place) for place in range(count)], share, confidence)
    if found is None:
        assert below.max() < confidence + 1e-9
    else:
        assert below[int(found)] >= confidence - 1e-9
        assert found == 0 or below[int(found) - 1] < confidence + 1e-9


def test_it_keeps_its_word() -> None:
    """Over many samples the bound is above the quantile about as often as was asked for, and not much more often."""
    draw = np.random.default_rng(1)
    bounds = [bound_of_quantile(draw.normal(size=200).tolist(), 0.9, 0.95) for _ in range(2000)]
    share = np.mean([bound is not None and bound >= 1.2815515 for bound in bounds])
    assert 0.94 < share < 0.985


def hits(*scores: float) -> list[Hit]:
    return [
        Hit(Document(f"d{place}", "t", parent="whole" if place == 1 else None), s) for place, s in enumerate(scores)
    ]


def test_relevant_documents_and_their_chunks_are_taken_away() -> None:
    dense = {f"q{number}": hits(0.9, 0.8, 0.5 + number / 1000) for number in range(40)}
    qrels = {query: {"d0": 1, "whole": 2, "d2": 0} for query in dense}
    choice = choose_refusal(dense, qrels, "m", 0.9)
    threshold = choice["threshold"]
    assert threshold is not None and 0.5 + 0.036 <= threshold <= 0.5391 and choice["model"] == "m"
    assert (choice["queries"], choice["answered"]) == (40, 1.0) and choice["refused"] >= 0.9
    rule = Refusal(threshold, "m")
    assert rule.refuses(threshold) and not rule.refuses(0.9)


def test_too_few_queries_choose_nothing_and_say_so() -> None:
    choice = choose_refusal({"q": hits(0.9, 0.1)}, {"q": {"d0": 1}}, "m", 0.9)
    assert choice["threshold"] is None and "too few" in choice["chosen"] and choice["answered"] == 1.0
    assert choose_refusal({"q": []}, {"q": {"d0": 1}}, "m", 0.9)["queries"] == 0
    assert choice["refused"] == pytest.approx(0.0)


def test_more_wanted_is_a_higher_threshold_and_nothing_wanted_is_none() -> None:
    dense = {f"q{number}": hits(0.9, 0.1, number / 100) for number in range(40)}
    qrels = {query: {"d0": 1, "whole": 1} for query in dense}
    some, more, none = (choose_refusal(dense, qrels, "m", wanted) for wanted in (0.5, 0.9, 0.0))
    assert some["threshold"] and more["threshold"] and some["threshold"] < more["threshold"]
    assert (none["threshold"], none["answered"], none["chosen"]) == (None, 1.0, "nothing, as was asked for")
