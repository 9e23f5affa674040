"""Merging of low-rank updates, and reduction to a given rank. Never a full SVD of a [d_out, d_in] matrix.

Shapes: K adapters, r rank, d_in (I) and d_out (O) features. An update is B A, alpha / rank folded into B.

A merged update whose method is a weighted sum (`merging.SPANNING`) is [c_1 B_1 ... c_K B_K] [A_1; ...; A_K]: the ranks
are concatenated, and there is no product B_i A_j of different adapters, as there is where A and B are averaged apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from acclimate.core import merging

Factors: TypeAlias = tuple[Tensor, Tensor]
"""A [r, d_in], B [d_out, r]."""
Modules: TypeAlias = Mapping[str, Factors]

OVERSAMPLING = 8
POWER_STEPS = 8
"""Extra columns and steps of the subspace iteration (Halko et al. 2011 advise 5 to 10 columns, and a few steps)."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """Squared Frobenius norms: of what a lower rank loses, and of the whole."""

    lost: float
    whole: float

    @property
    def share(self) -> float:
        return self.lost / self.whole if self.whole else 0.0


def merge_low_rank(
    adapters: Sequence[Modules],
    method: str,
    weights: Sequence[float],
    *,
    rank: int | None = None,
    density: float = 0.5,
    update_scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Factors], dict[str, Discarded]]:
    """Merge adapters of one base into one, float32; an adapter without a module has a zero update there.

    Args:
        adapters: module -> (A, B) of each; ranks may differ.
        method: one of `merging.METHODS`.
        weights: one per adapter, as for `merging.merge`.
        rank: highest rank of the result. None: weighted sums are exact (the ranks add up); the other methods, whose
            result has full rank, keep the sum of the adapters' ranks.
        density: ties and dare-*: the share of elements kept.
        update_scale: methods on updates: factor of the merged update.
        generator: dare-*: decides what is dropped; torch's default one if None.

    Returns:
        The merged adapter, and per module what its rank loses.
    """
    merging.check(method, weights, len(adapters), density)
    if method in merging.ELEMENTWISE:
        dense = merge_dense(adapters, method, weights, density=density, update_scale=update_scale, generator=generator)
        ranks = {name: sum(len(modules[name][0]) for modules in adapters if name in modules) for name in dense}
        results = {name: truncate(dense[name], rank or ranks[name]) for name in dense}
    else:
        scale = update_scale if method in merging.OF_UPDATES else 1.0
        exact = _weighted_sums(adapters, method, torch.tensor(weights, dtype=torch.float64), scale)
        results = {name: _compressed(pair, rank) for name, pair in exact.items()}
    return {name: pair for name, (pair, _) in results.items()}, {name: lost for name, (_, lost) in results.items()}


def merge_dense(
    adapters: Sequence[Modules],
    method: str,
    weights: Sequence[float],
    *,
    density: float = 0.5,
    update_scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The merged updates as full matrices [d_out, d_in]; arguments as `merge_low_rank`. The reference of all others."""
    merged: dict[str, Tensor] = {}
    for name, (A_KrI, B_KOr) in sorted(_padded(adapters).items()):
        updates = [{name: update_OI} for update_OI in B_KOr.float() @ A_KrI.float()]
        merged |= merging.merge(
            updates, None, method, weights, density=density, update_scale=update_scale, generator=generator
        )
    return merged


def compress(A_rI: Tensor, B_Or: Tensor, rank: int) -> tuple[Factors, Discarded]:
    """The best approximation of B A of at most this rank (Eckart & Young 1936).

    By QR of both thin factors and an SVD of the small product of what is left; in float64.
    """
    Q_out, R_out = torch.linalg.qr(B_Or.detach().double())
    Q_in, R_in = torch.linalg.qr(A_rI.detach().double().T)
    U, values, V = torch.linalg.svd(R_out @ R_in.T, full_matrices=False)
    squared = values.square()
    A = (Q_in @ V[:rank].T).T.float().contiguous()
    B = (Q_out @ U[:, :rank] * values[:rank]).float().contiguous()
    return (A, B), Discarded(float(squared[rank:].sum()), float(squared.sum()))


def truncate(update_OI: Tensor, rank: int) -> tuple[Factors, Discarded]:
    """A good approximation of a full matrix of at most this rank, by subspace iteration.

    Halko, Martinsson & Tropp 2011, algorithm 4.4, then an SVD of the thin rest. Exact where the rank (with the
    oversampling) reaches the matrix's smaller side. The share discarded is that of what is returned.
    """
    update = update_OI.detach().double()
    columns = min(rank + OVERSAMPLING, *update.shape)
    # The start only has to be in general position: a fixed one makes the result a function of the matrix.
    start = torch.randn(update.shape[1], columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Q, _ = torch.linalg.qr(update @ start.to(update.device))
    for _ in range(POWER_STEPS):
        Q, _ = torch.linalg.qr(update.T @ Q)
        Q, _ = torch.linalg.qr(update @ Q)
    U, values, V = torch.linalg.svd(Q.T @ update, full_matrices=False)
    A, B = V[:rank].float().contiguous(), (Q @ U[:, :rank] * values[:rank]).float().contiguous()
    whole = float(update.square().sum())
    return (A, B), Discarded(max(0.0, whole - float(values[:rank].square().sum())), whole)


def _weighted_sums(adapters: Sequence[Modules], method: str, weight_K: Tensor, scale: float) -> dict[str, Factors]:
    """Ranks concatenated; adapters with the coefficient 0 are left out."""
    merged = {}
    for name, (A_KrI, B_KOr) in sorted(_padded(adapters).items()):
        K = len(weight_K)
        gram_KK = weight_K.new_zeros(K, K) if method in merging.BY_WEIGHTS else _gram(A_KrI, B_KOr)
        coefficients = (merging.SPANNING[method](gram_KK, weight_K) * scale).tolist()
        parts = [
            (modules[name][0].detach().float(), modules[name][1].detach().float() * coefficient)
            for coefficient, modules in zip(coefficients, adapters, strict=True)
            if coefficient and name in modules
        ]
        if not parts:
            parts = [(A_KrI[0].detach().float(), torch.zeros_like(B_KOr[0], dtype=torch.float32))]
        merged[name] = (torch.cat([A for A, _ in parts]), torch.cat([B for _, B in parts], dim=1))
    return merged


def _padded(adapters: Sequence[Modules]) -> dict[str, Factors]:
    """Per module A [K, r, d_in] and B [K, d_out, r] of all adapters, for arithmetic on their updates.

    Members of lower rank, or without a module, are padded with zeros, which changes nothing: B A has the same value.
    """
    padded = {}
    for name in dict.fromkeys(name for modules in adapters for name in modules):
        present = {k: modules[name] for k, modules in enumerate(adapters) if name in modules}
        rank = max(A.shape[0] for A, _ in present.values())
        first_A, first_B = next(iter(present.values()))
        A_KrI = first_A.new_zeros(len(adapters), rank, first_A.shape[1])
        B_KOr = first_B.new_zeros(len(adapters), first_B.shape[0], rank)
        for k, (A, B) in present.items():
            A_KrI[k, : A.shape[0]] = A
            B_KOr[k, :, : B.shape[1]] = B
        padded[name] = (A_KrI, B_KOr)
    return padded


def _gram(A_KrI: Tensor, B_KOr: Tensor) -> Tensor:
    """Inner products of the updates, [K, K] in float64: <B_k A_k, B_l A_l> = sum of (B_k' B_l) * (A_k A_l')."""
    A, B = A_KrI.detach().double(), B_KOr.detach().double()
    return (torch.einsum("koa,lob->klab", B, B) * torch.einsum("kai,lbi->klab", A, A)).sum((-1, -2)).cpu()


def _compressed(pair: Factors, rank: int | None) -> tuple[Factors, Discarded]:
    A_rI, B_Or = pair
    if rank is not None and len(A_rI) > rank:
        return compress(A_rI, B_Or, rank)
    return pair, Discarded(0.0, float(_gram(A_rI[None], B_Or[None])))
