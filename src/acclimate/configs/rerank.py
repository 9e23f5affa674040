"""Settings of rerankers: `train-reranker`, `evaluate-reranker`, `rerank`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from acclimate.configs.checks import check_above, check_at_least

Retriever: TypeAlias = Literal["auto", "base", "adapted"]
RerankLoss: TypeAlias = Literal["listwise", "pointwise", "pairwise", "margin-mse", "kl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankConfig:
    """Rerankers, which read query and document together and put the first retrieved documents in a better order."""

    rerank_depth: int = 100
    """Number of best retrieved documents that are reranked."""
    retriever: Retriever = "auto"
    """Which of the run's embedding models retrieves them. auto: the adapted one, if there is one."""
    rerank_instruction: str | None = None
    """Instruction for Qwen3-Reranker: what makes a document relevant. Its own, about web search, if not given."""
    pair_tokens: int | None = None
    """Largest number of tokens of query, document and template together; longer input is cut. The reranker's own limit
    if not given."""
    rerank_loss: RerankLoss = "listwise"
    """listwise: softmax over each query's documents; pointwise: each document alone, relevant or not; pairwise:
    RankNet; margin-mse, kl: imitate the scores of the teacher that mined the negatives, divided by
    teacher_temperature."""
    rerank_full: bool | None = None
    """Train all weights instead of an adapter. If not given, only where the base has no scoring head, so that it is
    new."""
    rerank_group_size: int = 5
    """Documents per example in a pass: its positive, and rerank_group_size - 1 of its negatives."""
    rerank_epochs: float = 2.0
    """Number of passes over the training examples."""
    rerank_batch_size: int = 32
    """Examples per step, each with its group of documents."""
    rerank_learning_rate: float | None = None
    """Peak learning rate; chosen by the size of the model's transformer if not given."""

    def __post_init__(self) -> None:
        check_at_least("rerank_depth", self.rerank_depth, 10)
        check_at_least("rerank_group_size", self.rerank_group_size, 2)
        check_at_least("rerank_batch_size", self.rerank_batch_size, 1)
        if self.pair_tokens is not None:
            check_at_least("pair_tokens", self.pair_tokens, 1)
        check_above("rerank_epochs", self.rerank_epochs, 0.0)
        if self.rerank_learning_rate is not None:
            check_above("rerank_learning_rate", self.rerank_learning_rate, 0.0)
