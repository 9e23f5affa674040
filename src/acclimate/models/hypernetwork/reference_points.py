"""What a generator has to be better than: adapters for a condition without a network.

Mixtures of the training tasks' own adapters (the nearest, a softmax over the likeness of their descriptions, ridge
regression), and for query vectors two closed forms: a ridge regression from queries to their documents, and taking a
domain's mean direction out.

Shapes: T conditions, N training tasks, P pairs, S texts, D vector size, r rank, I and O features in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from acclimate.core.low_rank import merge_low_rank
from acclimate.core.pooling import unit
from acclimate.errors import UsageError
from acclimate.models.hypernetwork.layers import QUERY_VECTOR, Weights

Mixing: TypeAlias = Literal["nearest", "softmax", "ridge"]
SOFTMAX_TEMPERATURE = 0.1
"""Cosines of whitened descriptions are divided by it."""
RIDGE = 0.3
"""Regularisation of the regression from descriptions to weights, relative to a description's likeness to itself."""
CLOSED_FORM_RIDGE = 1.0
"""Regularisation of the map from pairs: a query of length 1 that stands alone is moved half the way."""


def nearest(likeness_TN: Tensor, _: Tensor) -> Tensor:
    """All of the one training task whose description is most like the condition's."""
    return torch.nn.functional.one_hot(likeness_TN.argmax(1), likeness_TN.shape[1]).to(likeness_TN.dtype)


def softmax(likeness_TN: Tensor, _: Tensor) -> Tensor:
    """Shares that fall with the distance of the descriptions."""
    return (likeness_TN / SOFTMAX_TEMPERATURE).softmax(1)


def ridge(likeness_TN: Tensor, likeness_NN: Tensor) -> Tensor:
    """The ridge regression from descriptions to updates, in its dual form: its prediction is a sum of the training
    tasks' updates with these coefficients, which may be negative."""
    regularised_NN = likeness_NN + RIDGE * torch.eye(len(likeness_NN))
    coefficients_NT: Tensor = torch.linalg.solve(regularised_NN, likeness_TN.T)
    return coefficients_NT.T


MIXINGS: dict[Mixing, Callable[[Tensor, Tensor], Tensor]] = {"nearest": nearest, "softmax": softmax, "ridge": ridge}
"""(likeness [T, N], likeness of the training tasks to each other [N, N]) -> coefficients [T, N]."""


def mixture(
    mixing: Mixing,
    description_TD: Tensor,
    training_ND: Tensor,
    adapters: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
    rank: int,
) -> Weights:
    """Mix the training tasks' adapters for each condition; updates are added up, then reduced to a rank.

    Args:
        mixing: how.
        description_TD: whitened descriptions of the conditions.
        training_ND: whitened descriptions of the training tasks, the mean over a task's wordings.
        adapters: layer -> (A [r, I], B [O, r]) of each training task.
        rank: of the result.
    """
    description_TD, training_ND = unit(description_TD.float()), unit(training_ND.float())
    coefficients_TN = MIXINGS[mixing](description_TD @ training_ND.T, training_ND @ training_ND.T)
    mixed = []
    for coefficients in coefficients_TN.tolist():
        used = [(modules, share) for modules, share in zip(adapters, coefficients, strict=True) if share]
        modules = [modules for modules, _ in used]
        mixed.append(merge_low_rank(modules, "task-arithmetic", [share for _, share in used], rank=rank)[0])
    return {
        name: (torch.stack([one[name][0] for one in mixed]), torch.stack([one[name][1] for one in mixed]))
        for name in mixed[0]
    }


def map_from_pairs(query_PD: Tensor, document_PD: Tensor, regularisation: float = CLOSED_FORM_RIDGE) -> Weights:
    """The linear map that brings example queries to their documents, as near to the identity as that allows.

    The minimum of |Q (I + M) - D|^2 + regularisation |M|^2 over M, which is Q^T (Q Q^T + regularisation)^-1 (D - Q):
    of the rank P at most, so it needs no [D, D] matrix.

    Args:
        query_PD: unit rows.
        document_PD: unit rows.
        regularisation: the higher, the nearer to the identity.

    Raises:
        UsageError: no pair.
    """
    if not len(query_PD):
        raise UsageError("a map from pairs without a pair", fix="Give example pairs.")
    gram_PP = query_PD @ query_PD.T + regularisation * torch.eye(len(query_PD))
    moved_PD = torch.linalg.solve(gram_PP, document_PD - query_PD)
    return {QUERY_VECTOR: (query_PD[None], moved_PD.T[None])}


def map_from_texts(text_SD: Tensor) -> Weights:
    """Take the mean direction of sample texts, which all texts of a domain share, out of a query.

    Raises:
        UsageError: no text.
    """
    if not len(text_SD):
        raise UsageError("centring on a domain without a text of it", fix="Give sample texts.")
    direction_1D = unit(text_SD.mean(0, keepdim=True))
    return {QUERY_VECTOR: (direction_1D[None], -direction_1D.T[None])}
