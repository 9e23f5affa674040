"""Losses of rerankers: on raw scores of each query's documents.

Legend: N queries, G documents per query, the relevant one first; rows of fewer documents are padded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pointwise(score_NG: Tensor, present_NG: Tensor) -> Tensor:
    """Binary cross-entropy of every document alone: the first of each row is relevant, the others are not.

    Args:
        score_NG: raw scores (logits).
        present_NG: False where padded.

    Source: Nogueira & Cho 2019, "Passage Re-ranking with BERT", the loss of section 2.
    """
    target_NG = torch.zeros_like(score_NG)
    target_NG[:, 0] = 1.0
    return F.binary_cross_entropy_with_logits(score_NG[present_NG], target_NG[present_NG])


def listwise(score_NG: Tensor, present_NG: Tensor) -> Tensor:
    """Cross-entropy of the relevant document in the softmax over its row; mean over the rows.

    Args:
        score_NG: raw scores.
        present_NG: False where padded.

    Source: Gao et al. 2021, "Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline", eq. 4 (localized
    contrastive estimation).
    """
    scores = score_NG.masked_fill(~present_NG, float("-inf"))
    return F.cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.long))


def pairwise(score_NG: Tensor, present_NG: Tensor) -> Tensor:
    """RankNet: log(1 + exp(negative - positive)), mean over all negatives.

    Args:
        score_NG: raw scores.
        present_NG: False where padded.

    Source: Burges et al. 2005, "Learning to Rank using Gradient Descent", eq. 3.
    """
    return F.softplus(score_NG[:, 1:] - score_NG[:, :1])[present_NG[:, 1:]].mean()
