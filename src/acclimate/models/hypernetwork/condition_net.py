"""From a task's condition to one vector, whatever of it is given and in whatever order.

Description and texts are centred and whitened over the training tasks: descriptions of one kind lie so close together
in the base's space that a network sees little else than what they share. Descriptions are whitened by how the wordings
of one task differ, so that what tells tasks apart counts more than how it is put. Pairs say what has to agree between a
query and a document: along learned directions, how a query's coordinate agrees with its document's once the sample's
own means are taken off, which are the domain and not the task.

Shapes: T tasks, P pairs, S texts, D vector size, K directions, C width of the condition, N samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acclimate.models.hypernetwork.condition import ConditionBatch

KEPT_VARIANCE = 1e-4
"""Directions whose variance is below this share of the largest one are dropped: what no training task has told apart
would be noise, blown up."""
SHRINKAGE = 1.0
"""Share of the mean variance that is added to each direction's before whitening: whitened in full, the many directions
in which only wordings differ are as long as those in which tasks do."""
LEAST_SPREAD = 1e-4
"""Added where an agreement is divided by its own size: coordinates of unit vectors have squares of about 1 / D."""


class Whitening(nn.Module):
    """Vectors [..., D] with mean 0, uncorrelated and of about equal variance over the training tasks.

    Until `learn` is called, they stay as they are.
    """

    mean_D: Tensor
    map_DD: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("map_DD", torch.eye(dim))

    def learn_within(self, sample_ND: Tensor, kind_N: Tensor) -> None:
        """Take the covariance within kinds alone: the directions in which vectors of one kind differ become short.

        Directions in which they do not differ at all are kept, for kinds may differ there.

        Args:
            sample_ND: vectors of the training tasks.
            kind_N: of which task each is, from 0; equal kinds mean the same.
        """
        sample_ND = sample_ND.double()
        kinds = int(kind_N.max()) + 1
        count_K1 = torch.bincount(kind_N, minlength=kinds)[:, None].clamp_min(1)
        mean_KD = torch.zeros(kinds, sample_ND.shape[1], dtype=torch.float64).index_add(0, kind_N, sample_ND) / count_K1
        apart_ND = sample_ND - mean_KD[kind_N]
        variance_D, basis_DD = torch.linalg.eigh(apart_ND.T @ apart_ND / len(sample_ND))
        self.mean_D.copy_(sample_ND.mean(0))
        if float(variance_D.mean()) > 1e-12:  # else every task has one wording, and nothing is known of how they differ
            scale_D = (variance_D.clamp_min(0) + SHRINKAGE * variance_D.mean()).rsqrt()
            self.map_DD.copy_((basis_DD * scale_D) @ basis_DD.T)

    def learn(self, sample_ND: Tensor) -> None:
        """Take mean and covariance of the training tasks' vectors; symmetric whitening, shrunk, in float64."""
        centred_ND = sample_ND.double() - sample_ND.double().mean(0)
        variance_D, basis_DD = torch.linalg.eigh(centred_ND.T @ centred_ND / max(1, len(sample_ND) - 1))
        kept = variance_D > KEPT_VARIANCE * variance_D.max().clamp_min(1e-12)
        if not kept.any():  # one vector, or equal ones: nothing to whiten by
            self.mean_D.copy_(sample_ND.mean(0))
            return
        variance_D, basis_DK = variance_D[kept], basis_DD[:, kept]
        scale_K = (variance_D + SHRINKAGE * variance_D.mean()).rsqrt()
        self.mean_D.copy_(sample_ND.double().mean(0))
        self.map_DD.copy_((basis_DK * scale_K) @ basis_DK.T)

    def forward(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean_D) @ self.map_DD


class AttentionPool(nn.Module):
    """Weighted mean of a set's rows; the weights come from the rows themselves. At first it is the plain mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def weights(self, rows: Tensor, present: Tensor) -> Tensor:
        """[T, N] that sum to 1 over a task's rows; all 0 where it has none.

        Args:
            rows: [T, N, width].
            present: [T, N], False for padding.
        """
        scores_TN = self.score(rows)[..., 0].float().masked_fill(~present, -torch.inf)
        some_T1 = present.any(1, keepdim=True)
        weights_TN = torch.where(some_T1, scores_TN, torch.zeros_like(scores_TN)).softmax(1)
        return torch.where(some_T1, weights_TN, torch.zeros_like(weights_TN)).to(rows.dtype)

    def forward(self, rows: Tensor, present: Tensor) -> Tensor:
        return torch.einsum("tn,tnc->tc", self.weights(rows, present), rows)


class PairAgreement(nn.Module):
    """How the two sides of example pairs agree along learned directions, [T, C].

    Along a direction, with u and v the coordinates of queries and documents minus their means over the sample, the
    agreement is the weighted mean of u v over that of (u^2 + v^2) / 2: 1 where both sides always agree, 0 where they
    know nothing of each other. A single pair has no mean of its own: the mean over the training tasks is taken off.

    Args:
        dim: D.
        width: C.
        directions: K.
    """

    def __init__(self, dim: int, width: int, directions: int) -> None:
        super().__init__()
        self.query, self.document = Whitening(dim), Whitening(dim)
        self.project = nn.Linear(dim, directions, bias=False)
        self.pool = AttentionPool(directions)
        self.read = nn.Sequential(nn.Linear(directions + 1, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, query_TPD: Tensor, document_TPD: Tensor, pair_TP: Tensor) -> Tensor:
        u_TPK = self.project(self.query(query_TPD))
        v_TPK = self.project(self.document(document_TPD))
        count_T1 = pair_TP.sum(1, keepdim=True)
        several_T11 = (count_T1 > 1)[..., None]
        present_TP1 = pair_TP[..., None].to(u_TPK.dtype)
        for_mean_T11 = count_T1[..., None].clamp_min(1).to(u_TPK.dtype)
        u_TPK = u_TPK - torch.where(several_T11, (u_TPK * present_TP1).sum(1, keepdim=True) / for_mean_T11, 0.0)
        v_TPK = v_TPK - torch.where(several_T11, (v_TPK * present_TP1).sum(1, keepdim=True) / for_mean_T11, 0.0)
        size_TPK = 0.5 * (u_TPK.square() + v_TPK.square())
        weights_TP = self.pool.weights(u_TPK * v_TPK / (size_TPK + LEAST_SPREAD), pair_TP)
        both_TK = torch.einsum("tp,tpk->tk", weights_TP, u_TPK * v_TPK)
        size_TK = torch.einsum("tp,tpk->tk", weights_TP, size_TPK)
        certainty_T1 = 1 / count_T1.clamp_min(1).to(u_TPK.dtype).sqrt()
        agreement_TC: Tensor = self.read(torch.cat([both_TK / (size_TK + LEAST_SPREAD), certainty_T1], 1))
        return agreement_TC


class ConditionNet(nn.Module):
    """A batch of conditions -> [T, C]: the sum of what is given, and beside it what a small network makes of that.

    Args:
        dim: D.
        width: C.
        directions: K, along which pairs are compared.
    """

    def __init__(self, dim: int, width: int, directions: int) -> None:
        super().__init__()
        self.described = Whitening(dim)
        self.described_in = nn.Linear(dim, width)
        self.pairs = PairAgreement(dim, width, directions)
        self.texts = Whitening(dim)
        self.texts_in = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width))
        self.texts_pool = AttentionPool(width)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.beside = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, batch: ConditionBatch) -> Tensor:
        description_TC = self.described_in(self.described(batch.description_TD))
        total_TC = description_TC * batch.described_T[:, None]
        if batch.pair_TP.shape[1]:
            pairs_TC = self.pairs(batch.query_TPD, batch.document_TPD, batch.pair_TP)
            total_TC = total_TC + pairs_TC * batch.pair_TP.any(1, keepdim=True)
        if batch.text_TS.shape[1]:
            texts_TSC = self.texts_in(self.texts(batch.text_TSD))
            total_TC = total_TC + self.texts_pool(texts_TSC, batch.text_TS)
        total_TC = self.before(total_TC)
        condition_TC: Tensor = self.after(total_TC + self.beside(total_TC))
        return condition_TC
