"""Reranking a run, and a reranker's training step against the plain way of computing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.configs import ObjectiveConfig, RerankConfig, RunConfig, TrainConfig
from acclimate.core import ranking
from acclimate.evaluation.reranking import reranking_scores, sample_queries
from acclimate.models.reranker import Reranker
from acclimate.retrieval.rerank import rerank
from acclimate.training.rerank_objective import reranking
from acclimate.training.schedule import TaskSchedule
from acclimate.types import Example
from tests.conftest import shared_data
from tests.models import tiny

QUERIES = {"q1": "list files", "q2": "show disk usage"}
CORPUS = {"a": "in a folder", "b": "memory user time", "c": "in a folder", "d": "sort lines count words"}
RETRIEVED = {"q1": {"d": 0.9, "c": 0.8, "a": 0.7, "b": 0.6}, "q2": {"b": 0.5}}
EXAMPLES = [
    Example("list files", "in a folder", ("memory user time", "sort lines", "count words in text")),
    Example("show disk usage", "of a large folder and of all files", ("print",)),
    Example("sort lines", "by name", ("remove directory", "copy files")),
]
SCHEDULE = TaskSchedule(examples=3, batch_size=3, epochs=1, seed=7, learning_rate=1e-3, warmup_fraction=0.1)


def sections(config: RunConfig) -> tuple[RerankConfig, ObjectiveConfig, TrainConfig]:
    return config.rerank, config.objective, config.train


@pytest.fixture(scope="module", params=["bert", "qwen3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp(request.param)
    if request.param == "bert":
        return tiny.tiny_reranker(where)
    return tiny.tiny_qwen3_reranker(where, shared_data("tokenizers", "qwen_bpe"))


def load(folder: Path) -> Reranker:
    return Reranker.load(str(folder), device="cpu", dtype="float32")


def test_a_run_is_reordered_by_one_pair_at_a_time(folder: Path) -> None:
    reranker = load(folder)
    run = rerank(reranker, RETRIEVED, QUERIES, CORPUS, 3)
    assert set(run["q1"]) == {"d", "c", "a"} and list(run["q2"]) == ["b"]  # the fourth is beyond the depth
    expected = {name: float(reranker.score("list files", [CORPUS[name]])[0]) for name in "dca"}
    assert run["q1"] == pytest.approx(expected, abs=1e-5)
    assert list(run["q1"].values()) == sorted(run["q1"].values(), reverse=True)
    assert list(run["q1"]).index("a") + 1 == list(run["q1"]).index("c")  # equal texts, equal scores: by id


def test_dev_scores_begin_with_the_retrieval_s(folder: Path) -> None:
    reranker = load(folder)
    evaluate = reranking_scores(reranker, RETRIEVED, QUERIES, CORPUS, {"q1": {"a": 1}, "q2": {"b": 1}})
    before, after = evaluate(0), evaluate(1)
    assert before["mrr@10"] == pytest.approx((1 / 3 + 1) / 2)
    place = list(rerank(reranker, RETRIEVED, QUERIES, CORPUS, 4)["q1"]).index("a") + 1
    assert after["mrr@10"] == pytest.approx((1 / place + 1) / 2)


def test_sampled_queries() -> None:
    qrels = {f"q{number}": {"d": number % 2} for number in range(40)}
    chosen = sample_queries(qrels, 5, seed=1)
    assert len(chosen) == 5 and all(grades["d"] > 0 for grades in chosen.values())
    assert chosen == sample_queries(qrels, 5, seed=1) != sample_queries(qrels, 5, seed=2)
    assert len(sample_queries(qrels, 100, seed=1)) == 20


@pytest.mark.parametrize("loss", ["listwise", "pointwise", "pairwise"])
@pytest.mark.parametrize("memory_gb", [2.0, 1e-6])
def test_a_step_equals_the_plain_loss(
    folder: Path, loss: Any, memory_gb: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many chunks, kept or computed twice, against every pair on its own."""
    monkeypatch.setattr("acclimate.training.chunk_budget.CHUNK_TOKENS", {"cpu": 40})
    config = RunConfig(
        rerank=RerankConfig(rerank_loss=loss, rerank_group_size=4),
        train=TrainConfig(activation_memory_gb=memory_gb),
    )
    chunked, plain = load(folder), load(folder)
    for reranker in (chunked, plain):
        reranker.model.requires_grad_(True)
    result = reranking(chunked, EXAMPLES, SCHEDULE, *sections(config))(0)

    batch = [EXAMPLES[row] for row in SCHEDULE.batch(0)]
    scores = torch.full((3, 4), 50.0)  # of the padding: must not matter
    present = torch.zeros(3, 4, dtype=torch.bool)
    tokens = 0
    for row, example in enumerate(batch):
        for column, text in enumerate([example.positive, *example.negatives]):
            pairs = plain.tokenise([example.anchor], [text])
            tokens += int(pairs.tokens.lengths.sum())
            scores[row, column] = plain.forward_tokens(pairs, np.array([0]))[0]
            present[row, column] = True
    expected = {"listwise": ranking.listwise, "pointwise": ranking.pointwise, "pairwise": ranking.pairwise}[loss](
        scores, present
    )
    expected.backward()
    assert result.loss == pytest.approx(float(expected), abs=1e-5) and result.tokens == tokens
    others = dict(plain.model.named_parameters())
    compared = 0
    for name, parameter in chunked.model.named_parameters():
        if parameter.grad is not None:
            compared += 1
            assert torch.allclose(parameter.grad, others[name].grad, atol=1e-4, rtol=1e-3), name  # type: ignore[arg-type]
    assert compared > 10


def test_negatives_are_drawn_anew_in_every_pass(folder: Path) -> None:
    config = RunConfig(rerank=RerankConfig(rerank_group_size=2))
    schedule = replace(SCHEDULE, epochs=4)
    reranker = load(folder)
    reranker.model.requires_grad_(True)
    step = reranking(reranker, EXAMPLES, schedule, *sections(config))
    losses = [step(number).loss for number in range(4)]
    assert len(set(losses)) > 1 and step(0).loss == losses[0]


@pytest.mark.parametrize("loss", ["margin-mse", "kl"])
def test_distillation_imitates_the_teacher(folder: Path, loss: Any) -> None:
    """A teacher whose scores are the reranker's own leaves nothing to learn; another one does."""
    reranker = load(folder)
    reranker.model.requires_grad_(True)
    own = [
        tuple(reranker.score(example.anchor, [example.positive, *example.negatives]).tolist()) for example in EXAMPLES
    ]
    config = RunConfig(rerank=RerankConfig(rerank_loss=loss, rerank_group_size=4))
    same = [replace(example, scores=scores) for example, scores in zip(EXAMPLES, own, strict=True)]
    other = [
        replace(example, scores=tuple(-score for score in scores))
        for example, scores in zip(EXAMPLES, own, strict=True)
    ]
    learnt, not_yet = (float(reranking(reranker, rows, SCHEDULE, *sections(config))(0).loss) for rows in (same, other))
    assert abs(learnt) < 1e-6 < not_yet
