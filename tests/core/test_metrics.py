"""Rank order, ROC-AUC, best F1 and margins: by hand, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from acclimate.core.metrics import best_f1, margin_statistics, rank_documents, roc_auc

LABELLED = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40)
"""Few distinct scores, so that ties are frequent."""


def test_rank_is_score_descending_then_id_ascending() -> None:
    order = rank_documents(np.array([0.5, 0.9, 0.5, 0.5]), ["b", "z", "a", "B"])
    assert [["b", "z", "a", "B"][index] for index in order] == ["z", "B", "a", "b"]


@given(LABELLED)
def test_rank_equals_python_sort(rows: list[tuple[int, bool]]) -> None:
    ids = [f"d{index % 3}{index}" for index in range(len(rows))]
    scores = np.array([score for score, _ in rows], dtype=np.float64)
    expected = sorted(range(len(ids)), key=lambda index: (-scores[index], ids[index]))
    assert rank_documents(scores, ids).tolist() == expected


def test_roc_auc_by_hand() -> None:
    # Positives 0.9 and 0.4, negatives 0.4 and 0.1. Of the four comparisons 0.9 wins two, 0.4 wins one and ties one:
    # (1 + 1 + 1 + 0.5) / 4.
    scores, positive = np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])
    assert roc_auc(scores, positive) == pytest.approx(3.5 / 4)


def test_best_f1_by_hand() -> None:
    # Threshold 0.9: 1 of 1 right, F1 = 2*1/(1+3) = 0.5. 0.6: two accepted, 1 right: 2*1/(2+3) = 0.4.
    # 0.5: three accepted (0.5 is one more positive), 2 right: 2*2/(3+3) = 2/3. 0.2: 2*3/(5+3) = 0.75 (both 0.2 enter).
    scores = np.array([0.2, 0.9, 0.6, 0.5, 0.2])
    positive = np.array([True, True, False, True, False])
    assert best_f1(scores, positive) == (pytest.approx(0.75), 0.2)


def test_an_empty_class_has_no_auc_and_no_f1() -> None:
    scores = np.array([0.1, 0.2])
    assert math.isnan(roc_auc(scores, np.array([True, True])))
    assert math.isnan(roc_auc(scores, np.array([False, False])))
    assert all(math.isnan(value) for value in best_f1(scores, np.array([False, False])))


@settings(max_examples=25, deadline=None)
@given(LABELLED)
def test_auc_and_f1_equal_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in rows], dtype=np.float64)
    positive = np.array([label for _, label in rows])
    if positive.any() and not positive.all():
        assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    if positive.any():
        every_cut = {cut: f1_score(positive, scores >= cut) for cut in scores}
        best, threshold = best_f1(scores, positive)
        assert best == pytest.approx(max(every_cut.values()))
        assert every_cut[threshold] == pytest.approx(best)


def test_margin_statistics_by_hand() -> None:
    # Positives (0.8 + 0.6) / 2 = 0.7, hardest negatives (0.5 + 0.7) / 2 = 0.6.
    found = margin_statistics(np.array([0.8, 0.6]), np.array([0.5, 0.7]))
    assert found == pytest.approx({"positive_cosine": 0.7, "negative_cosine": 0.6, "margin": 0.1})
