"""Training of a reranker as a `loss_fn` for `fit`: each example's documents are scored together with its query.

A step of many pairs is computed chunk by chunk, and its gradient carried back by `gradcache`, with scores in place of
vectors.

Legend: N training rows of the step, G documents per row, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acclimate.configs import ObjectiveConfig, RerankConfig, TrainConfig
from acclimate.core import ranking
from acclimate.core.batching import step_seed
from acclimate.core.lora import generated_as_leaves, held
from acclimate.core.losses import kl_divergence, margin_mse
from acclimate.models.reranker import Reranker
from acclimate.training.chunk_budget import chunk_budget
from acclimate.training.fit import LossFn, StepResult
from acclimate.training.gradcache import chunked_backward
from acclimate.training.objectives import batch_with_negatives
from acclimate.training.schedule import TaskSchedule
from acclimate.types import Example

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pointwise": ranking.pointwise,
    "listwise": ranking.listwise,
    "pairwise": ranking.pairwise,
}
"""(scores [N, G], present [N, G]) -> loss."""
DISTILLATION: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "margin-mse": lambda scores, teacher, present, temperature: margin_mse(scores, teacher / temperature, present),
    "kl": lambda scores, teacher, present, temperature: kl_divergence(scores, teacher, present, 1.0, temperature),
}
"""(scores, the teacher's scores, present, teacher_temperature) -> loss."""


def reranking(
    reranker: Reranker,
    examples: Sequence[Example],
    schedule: TaskSchedule,
    settings: RerankConfig,
    objective: ObjectiveConfig,
    train: TrainConfig,
    *,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> LossFn:
    """Make the `loss_fn`: one positive and some negatives of each example, and the loss that the config names.

    Args:
        reranker: the reranker in training.
        examples: all training rows, each with negatives.
        schedule: which rows a step has.
        settings: the loss, the group size.
        objective: the temperature of the teacher.
        train: memory, dropout.
        autocast: context entered around every forward pass.
    """
    model: Any = reranker.model
    budget = chunk_budget(model, reranker.device, train)

    def loss_fn(step: int) -> StepResult:
        batch = batch_with_negatives(examples, schedule, step, settings.rerank_group_size - 1)
        groups = [(example.positive, *example.negatives) for example in batch]
        present_NG = _present(groups).to(reranker.device)
        queries = [example.anchor for example, group in zip(batch, groups, strict=True) for _ in group]
        pairs = reranker.tokenise(queries, [text for group in groups for text in group])
        lengths_P = pairs.tokens.lengths
        chunks = budget.chunks(lengths_P)

        def score(chunk: np.ndarray) -> Tensor:
            with autocast():
                return reranker.forward_tokens(pairs, chunk)[:, None]

        def loss_of_scores(scores_P1: Tensor) -> Tensor:
            scores_NG = scores_P1.new_zeros(present_NG.shape).masked_scatter(present_NG, scores_P1[:, 0])
            return _loss(scores_NG, present_NG, batch, settings.rerank_loss, objective.teacher_temperature)

        with held(model), generated_as_leaves(model):
            model.train()
            loss = chunked_backward(
                score,
                chunks,
                loss_of_scores,
                torch.zeros(len(lengths_P), 1, device=reranker.device),
                tokens=[int(lengths_P[chunk].sum()) for chunk in chunks],
                max_tokens=budget.max_tokens,
                seed_of=lambda chunk: step_seed(schedule.seed, step, chunk),
            )
        return StepResult(loss, int(lengths_P.sum()))

    return loss_fn


def _loss(scores_NG: Tensor, present_NG: Tensor, batch: Sequence[Example], name: str, temperature: float) -> Tensor:
    if name in LOSSES:
        return LOSSES[name](scores_NG, present_NG)
    teacher_P = scores_NG.new_tensor([score for example in batch for score in example.scores or ()])
    teacher_NG = torch.zeros_like(scores_NG).masked_scatter(present_NG, teacher_P)
    return DISTILLATION[name](scores_NG, teacher_NG, present_NG, temperature)


def _present(groups: Sequence[Sequence[str]]) -> Tensor:
    """[N, G], True where a row has a document."""
    sizes = torch.tensor([len(group) for group in groups])
    return torch.arange(int(sizes.max()))[None] < sizes[:, None]
