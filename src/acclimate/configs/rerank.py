"""Settings of rerankers: `train --reranker`, `evaluate --reranker`, `rerank`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from acclimate.configs.checks import check_above, check_at_least

RerankLoss: TypeAlias = Literal["listwise", "pointwise", "pairwise", "margin-mse", "kl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankConfig:
    """Reading query and text together: the first documents of a retrieval, put in a better order."""

    rerank_depth: int = 100
    """So many of the best retrieved documents are put in order anew."""
    retriever: Literal["auto", "base", "adapted"] = "auto"
    """Which of the run's embedding models retrieves them; auto takes the adapted one where there is one."""
    rerank_instruction: str | None = None
    """What makes a text relevant, for Qwen3-Reranker; its own, which is about web search, if not given."""
    pair_tokens: int | None = None
    """Query, text and what is put around them are cut to so many tokens; the reranker's own limit if not given."""
    rerank_loss: RerankLoss = "listwise"
    """listwise: softmax over each query's documents; pointwise: relevant or not, each alone; pairwise: RankNet.
    margin-mse, kl: imitate the scores of the teacher that mined the negatives, divided by teacher_temperature."""
    rerank_full: bool | None = None
    """Train every weight instead of an adapter; if not given, only where the head is new (the base has none)."""
    rerank_group_size: int = 5
    """Documents of each example in a pass: its positive, and rerank_group_size - 1 of its negatives."""
    rerank_epochs: float = 2.0
    """Passes over the training examples."""
    rerank_batch_size: int = 32
    """Examples per step, each with its group of documents."""
    rerank_learning_rate: float | None = None
    """Peak learning rate; chosen by the size of the model if not given."""

    def __post_init__(self) -> None:
        check_at_least("rerank_depth", self.rerank_depth, 10)
        check_at_least("rerank_group_size", self.rerank_group_size, 2)
        check_at_least("rerank_batch_size", self.rerank_batch_size, 1)
        if self.pair_tokens is not None:
            check_at_least("pair_tokens", self.pair_tokens, 1)
        check_above("rerank_epochs", self.rerank_epochs, 0.0)
        if self.rerank_learning_rate is not None:
            check_above("rerank_learning_rate", self.rerank_learning_rate, 0.0)
