"""Measures of images and texts against values known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.evaluation.image_measures import (
    Doubt,
    by_gain,
    class_accuracy,
    class_vectors,
    expected_by_chance,
    harmonic,
    retrieval,
    trained_offsets,
)

DOUBT = Doubt(200, 0.95, 0)


def test_a_perfect_search_scores_one_and_knows_its_chance() -> None:
    vectors = np.eye(4, dtype=np.float32)
    found = retrieval(vectors, vectors, np.eye(4, dtype=bool), [0, 1, 2, 3], DOUBT)
    assert found["ndcg@10"]["value"] == found["mrr@10"]["value"] == found["recall@5"]["value"] == 1
    assert found["precision@10"]["value"] == found["precision@10"]["chance"] == 0.25  # all four are in the first ten
    assert found["mrr@10"]["chance"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=0.1)


def test_among_themselves_no_query_finds_itself() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    same = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    found = retrieval(vectors, vectors, same, [0, 0, 1], DOUBT, among_themselves=True)
    assert found["mrr@10"]["value"] == 1 and found["mrr@10"]["queries"] == 2


def test_a_class_is_the_mean_of_its_texts() -> None:
    texts = np.array([[1, 0], [0, 1], [0, -1]], np.float32)
    vectors = class_vectors(texts, np.array([7, 7, 9]), [7, 9])
    np.testing.assert_allclose(vectors, [[0.7071, 0.7071], [0, -1]], atol=1e-4)
    images = np.array([[1, 0], [0, -1]], np.float32)
    assert class_accuracy(images, vectors, np.array([0, 1]), DOUBT)["value"] == 1
    assert class_accuracy(images, vectors, np.array([1, 1]), DOUBT) == {
        "value": 0.5,
        "low": 0.0,
        "high": 1.0,
        "queries": 2,
        "chance": 0.5,
    }


def test_chance_of_a_rare_text_is_low() -> None:
    relevant = np.zeros((20, 200), bool)
    relevant[np.arange(20), np.arange(20)] = True
    assert expected_by_chance("mrr@10", relevant, 0) < 0.05


def test_the_harmonic_mean_punishes_a_side_that_fails() -> None:
    assert harmonic(0.7, 0.02) < 0.04 and harmonic(0.5, 0.5) == 0.5 and harmonic(0, 0) == 0


def test_won_and_lost_are_those_with_the_largest_differences() -> None:
    assert by_gain([0.1, 0.5, 0.9, 0.3], [0.9, 0.5, 0.1, 0.4], 2) == ([0, 3], [2])


def test_the_offset_gives_classes_that_were_not_trained_on_a_chance() -> None:
    classes = np.array([[1.0, 0.0], [0.8, 0.6]], np.float32)
    images = np.array([[1.0, 0.0], [0.96, 0.28]], np.float32)  # the second is of class 1, and nearer to class 0
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    own, trained = np.array([0, 1]), np.array([True, False])
    assert class_accuracy(images, classes, own, DOUBT)["value"] == 0.5
    offset, mild = trained_offsets(images, classes, own, trained)
    assert 0 < offset < 0.2 and mild == offset  # this one costs nothing on the trained class
    assert class_accuracy(images, classes, own, DOUBT, np.array([offset, 0], np.float32))["value"] == 1


def test_the_mild_offset_costs_little_on_trained_classes() -> None:
    """Two classes; an image of the trained one is lost from 0.2 on, one of the other is won at 0.1, three at 0.5."""
    classes = np.eye(2, dtype=np.float32)
    gaps = np.array([0.19, 0.9, 0.09, 0.45, 0.45, 0.45])  # by how much the trained class is nearer
    images = np.stack([0.5 + gaps / 2, 0.5 - gaps / 2], 1).astype(np.float32)
    own, trained = np.array([0, 0, 1, 1, 1, 1]), np.array([True, False])
    found = trained_offsets(images, classes, own, trained)
    assert 0.09 < found.mild < 0.19 and found.balanced > 0.45
