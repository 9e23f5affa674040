"""Measures of a library's tasks against the general ones, the check by leaving pairs out, collapse, all by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from acclimate.data.relevance import RelevanceTask
from acclimate.evaluation.measures import evaluate_run
from acclimate.evaluation.own_check import Ranker, own_check
from acclimate.evaluation.task_scores import collapse, measured_queries, score_task
from acclimate.retrieval.rank import rank_vectors


def rows(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 12)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_measures_are_those_of_every_other_evaluation() -> None:
    generator = np.random.default_rng(0)
    query_N, document_M = generator.integers(0, 5, 40), generator.integers(0, 5, 60)
    task = RelevanceTask("t", ("d",), query_N, document_M, candidates=np.arange(10, 55))
    queries = measured_queries(task, 20)
    assert len(queries) == 20 and set(queries) <= set(task.usable)
    query_ND, document_MD = rows(40, 1)[queries], rows(60, 2)
    ids, ranked = [str(query) for query in queries], task.ranked()
    found = score_task(task, queries, query_ND, document_MD[ranked])
    run = rank_vectors(ids, query_ND, [str(place) for place in ranked], document_MD[ranked], 10)
    relevant = task.relevant(queries, ranked)
    qrels = {
        query: {str(ranked[place]): 1 for place in np.flatnonzero(row)}
        for query, row in zip(ids, relevant, strict=True)
    }
    expected = evaluate_run(run, qrels)[0]
    assert found.ndcg == pytest.approx(expected["ndcg@10"])
    assert found.recall == pytest.approx(expected["recall@5"])
    assert found.mrr == pytest.approx(expected["mrr@10"])


def test_collapse_by_hand() -> None:
    """Two equal updates: cosine 1, spread 0. Two of no common direction: cosine 0, spread as large as the mean."""
    shared = {"layer": (torch.zeros(1, 2), torch.zeros(2, 1))}

    def update(A: list[float], B: list[float]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        return {"layer": (torch.tensor([A]), torch.tensor(B)[:, None])}

    same = collapse([update([1, 0], [1, 0]), update([2, 0], [0.5, 0])], shared)
    assert same["cosine"] == pytest.approx(1) and same["spread"] == pytest.approx(0, abs=1e-6) and same["collapsed"]
    apart = collapse([update([1, 0], [1, 0]), update([0, 1], [0, 1])], shared)
    assert apart["cosine"] == pytest.approx(0) and apart["spread"] == pytest.approx(1) and not apart["collapsed"]
    beside = {"layer": (torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]))}
    assert collapse([update([1, 1], [1, 0]), update([1, -1], [1, 0])], beside)["cosine"] == pytest.approx(-1)


PAIRS = [("a", "x"), ("b", "y"), ("c", "z")]


def test_the_check_by_hand() -> None:
    """The base puts every document behind its distractor, a candidate first: 1 / log2(3) against 1."""
    documents = np.eye(4, dtype=np.float32)  # the pairs' own, then one distractor
    behind = [documents[number] * 0.5 + documents[3] for number in range(3)]
    rankers = {
        "base": lambda number: (behind[number], documents),
        "good": lambda number: (documents[number], documents),
    }
    check = own_check(rankers, PAIRS, 3, seed=0)
    assert check["ndcg"] == {"base": pytest.approx(1 / math.log2(3), abs=1e-4), "good": 1.0}
    assert check["best"] == "good"
    assert check["verdict"] == "no evidence"  # three pairs can prove nothing
    tied = own_check({"base": rankers["base"], "same": rankers["base"]}, PAIRS, 3, seed=0)
    assert (tied["best"], tied["verdict"]) == ("base", "no evidence")


def test_enough_pairs_are_evidence_and_ties_count_against() -> None:
    count = 12
    pairs = [(f"q{number}", f"d{number}") for number in range(count)]
    documents = np.eye(count, dtype=np.float32)
    rankers = {
        "base": lambda _: (np.zeros(count, np.float32), documents),
        "good": lambda number: (documents[number], documents),
    }
    check = own_check(rankers, pairs, count - 1, seed=0)
    assert check["ndcg"]["base"] == 0.0  # all are tied, so eleven others are as good
    assert check["verdict"] == "better" and check["against_base"]["good"]["low"] > 0


def test_the_base_is_kept_where_another_is_ahead_by_luck() -> None:
    """Ahead on three of eight pairs and behind on one: one time in four that is chance, or more."""
    documents = np.eye(9, dtype=np.float32)
    pairs = [(f"q{number}", f"d{number}") for number in range(8)]

    def ranker(right: set[int]) -> Ranker:
        return lambda number: (documents[number] if number in right else documents[8], documents)

    lucky = own_check({"base": ranker({3}), "lucky": ranker({0, 1, 2})}, pairs, 8, seed=0)
    assert lucky["ndcg"]["lucky"] > lucky["ndcg"]["base"]
    assert (lucky["best"], lucky["verdict"]) == ("base", "no evidence")
    proven = own_check({"base": ranker({3}), "good": ranker({0, 1, 2, 3, 4, 5})}, pairs, 8, seed=0)
    assert (proven["best"], proven["verdict"]) == ("good", "better")


def test_documents_of_the_same_query_are_no_distractors() -> None:
    documents = np.eye(3, dtype=np.float32)
    pairs = [("a", "x"), ("a", "y"), ("b", "z")]
    query = documents[0] + documents[1]
    check = own_check({"base": lambda _: (query, documents)}, pairs, 2, seed=0)
    assert check["ndcg"]["base"] == pytest.approx((1 + 1 + 1 / math.log2(4)) / 3, abs=1e-4)
