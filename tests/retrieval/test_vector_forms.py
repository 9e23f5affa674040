"""Stored vectors in every form: what they take, and what is found in them."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.retrieval.vector_forms import FORMS, Form, rounded, store


def unit_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


DOCUMENTS, QUERIES = unit_rows(300, 60), unit_rows(20, 60, seed=1)


def recall(form: Form, dim: int = 60, oversampling: int = 8) -> float:
    exact = np.argsort(-(QUERIES @ DOCUMENTS.T), axis=1)[:, :10]
    _, found = store(DOCUMENTS, form, dim, oversampling).search(QUERIES, 10)
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]))


@pytest.mark.parametrize(
    ("form", "searched", "kept"),
    [("float32", 240, 240), ("float16", 120, 120), ("int8", 60, 60), ("binary", 8, 8), ("binary, int8", 8, 68)],
)
def test_bytes_of_a_vector(form: Form, searched: int, kept: int) -> None:
    """60 signs are 7 bytes and a half, so 8."""
    stored = store(DOCUMENTS, form, 60, 8)
    assert (stored.searched_bytes, stored.bytes) == (searched, kept)


def test_the_less_is_kept_the_less_is_found() -> None:
    found = {form: recall(form) for form in FORMS}
    assert found["float32"] == 1.0 and found["float16"] > 0.98 and found["int8"] > 0.95
    assert found["binary"] < found["binary, int8"] < 1
    assert recall("float32", dim=30) < 1


def test_enough_candidates_find_what_the_second_score_finds() -> None:
    """Where all are candidates, only that score counts."""
    assert recall("binary, int8", oversampling=30) > 0.95
    assert recall("binary", oversampling=30) == pytest.approx(signs_recall())


def signs_recall() -> float:
    exact = np.argsort(-(QUERIES @ DOCUMENTS.T), axis=1)[:, :10]
    by_signs = np.argsort(-(QUERIES @ np.sign(DOCUMENTS).T), axis=1, kind="stable")[:, :10]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, by_signs, strict=True)]))


def test_one_constant_rounds_all_vectors() -> None:
    """0.5 becomes 127, so 0.1 becomes 25.4, rounded."""
    assert rounded(np.array([[0.5, -0.1], [0.02, 0.0]], np.float32)).tolist() == [[127, -25], [5, 0]]


def test_fewer_documents_than_results() -> None:
    for form in FORMS:
        _, rows = store(DOCUMENTS[:3], form, 60, 8).search(QUERIES, 10)
        assert all(set(row[row >= 0]) == {0, 1, 2} for row in rows)
