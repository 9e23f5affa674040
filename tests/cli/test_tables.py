"""What the terminal says of a comparison: how many clusters it rests on, and how BM25 was set up."""

from __future__ import annotations

import pytest

from acclimate.cli.tables import show_evaluation, show_reranking
from tests.report.sample_run import delta, retrieval_evaluation


def test_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    show_evaluation(retrieval_evaluation("better"))
    words = " ".join(capsys.readouterr().out.split())
    assert "test split: 606 queries, 10,347 documents, 571 clusters" in words
    assert "BM25: English, stop words left out (best NDCG@10 of 500 dev queries)." in words


def test_a_reranking(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"queries": 606, "retriever": "base", "depth": 50, "confidence": 0.95, "verdict": "better"}
    scores = {"retrieved": {"ndcg@10": 0.5}, "reranked": {"ndcg@10": 0.6}, "delta": {"ndcg@10": delta(0.1)}}
    show_reranking(report | scores)
    assert "606 queries, 571 clusters; base model, top 50 reranked" in " ".join(capsys.readouterr().out.split())
