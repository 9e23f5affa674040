"""Merging of several sets of weights into one, and of an adapter into its base. All in float32.

Shapes: K models, P elements of one tensor (flattened), r rank, d_in and d_out features.

Two families of methods, one table each:
`SPANNING`: the merged tensor is a weighted sum of the models' tensors, and the coefficients depend on nothing but
their lengths and angles (the Gram matrix). So they are exact over low-rank updates too (`core.low_rank`).
`ELEMENTWISE`: every element is looked at; these need the full matrices.

The unit of every method is one tensor: lengths, angles and the share of kept elements are per tensor, as in mergekit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from acclimate.core.linears import replace_module
from acclimate.core.lora import lora_layers
from acclimate.core.lora_linear import LoraLinear, LoraSetLinear
from acclimate.errors import ModelError, UsageError

Tensors: TypeAlias = Mapping[str, Tensor]
Coefficients: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(gram_KK, weight_K), both float64 -> coefficient_K."""
Elementwise: TypeAlias = Callable[[Tensor, Tensor, float, "torch.Generator | None"], Tensor]
"""(update_KP, weight_K, density, generator) -> the merged update [P]."""

MAX_STEPS = 100
"""Limit of the search for the mean on a sphere; two or three steps are enough for models of one base."""


def average(gram_KK: Tensor, weight_K: Tensor) -> Tensor:  # noqa: ARG001 - every rule has the same form
    """sum_k w_k x_k / sum_k w_k: with equal weights a model soup (Wortsman et al. 2022, equation 1)."""
    return weight_K / weight_K.sum()


def total(gram_KK: Tensor, weight_K: Tensor) -> Tensor:  # noqa: ARG001 - see above
    """sum_k w_k x_k: of updates, task arithmetic (Ilharco et al. 2023, section 2), whose weights may be negative."""
    return weight_K


def slerp(gram_KK: Tensor, weight_K: Tensor) -> Tensor:
    """Two models along the great circle between their directions (Shoemake 1985, section 3.3).

    Shoemake's vectors have length 1. For others, the direction is turned in this way, and the length is the weighted
    mean of both (mergekit's slerp applies the same coefficients to vectors of any length). Where there is no unique
    great circle (a zero tensor, equal or opposite directions), the result is the weighted average.
    """
    share_K, lengths_K, cosine_KK = _directions(gram_KK, weight_K)
    if cosine_KK is None:
        return share_K
    angle = torch.acos(cosine_KK[0, 1])
    if float(torch.sin(angle)) < 1e-7:
        return share_K
    return torch.sin(share_K * angle) / torch.sin(angle) / lengths_K * (share_K @ lengths_K)


def spherical_mean(gram_KK: Tensor, weight_K: Tensor) -> Tensor:
    """Any number of models: the point of the sphere with the least weighted sum of squared angles to all directions.

    From the weighted mean of the directions m on: log maps onto the tangent space at m, their weighted mean, exp map
    back, until nothing moves (Buss & Fillmore 2001, "Spherical averages", algorithm A1). The length is the weighted
    mean of all. Two models give `slerp`. mergekit's multislerp takes one such step, and projects onto the tangent space
    instead of the log map; the weighted mean of those projections is zero, so its result is the normalised average.

    The result is the weighted average where such a point is not unique: a zero tensor, opposite directions.
    """
    share_K, lengths_K, cosine_KK = _directions(gram_KK, weight_K)
    if cosine_KK is None:
        return share_K
    length = _length(share_K, cosine_KK)
    if length < 1e-7:
        return share_K
    mean_K = share_K / length
    for _ in range(MAX_STEPS):
        to_mean_K = (cosine_KK @ mean_K).clamp(-1, 1)
        angle_K = torch.acos(to_mean_K)
        if bool((angle_K[share_K != 0] > math.pi - 1e-4).any()):
            return share_K
        # The log map of x at m is angle / sin(angle) * (x - cos(angle) m).
        pull_K = share_K * torch.where(angle_K > 1e-7, angle_K / torch.sin(angle_K), 1.0)
        step_K = pull_K - (pull_K @ to_mean_K) * mean_K
        size = _length(step_K, cosine_KK)
        if size < 1e-7:
            break
        mean_K = math.cos(size) * mean_K + math.sin(size) / size * step_K
        mean_K = mean_K / _length(mean_K, cosine_KK)
    return mean_K / lengths_K * (share_K @ lengths_K)


def ties(update_KP: Tensor, weight_K: Tensor, density: float, generator: torch.Generator | None) -> Tensor:  # noqa: ARG001
    """Trim, elect a sign per element, mean of the updates that agree with it (Yadav et al. 2023, algorithm 1).

    Trimmed per tensor (as mergekit does; the paper over the whole model). Where the votes cancel out nothing is elected
    and the element stays the base's.
    """
    trimmed_KP = trim(update_KP, density)
    agree_KP = _elected(trimmed_KP, weight_K)
    voters_P = (weight_K[:, None] * agree_KP).sum(0)
    return (weight_K[:, None] * trimmed_KP * agree_KP).sum(0) / torch.where(voters_P > 0, voters_P, 1.0)


def dare_linear(update_KP: Tensor, weight_K: Tensor, density: float, generator: torch.Generator | None) -> Tensor:
    """Drop and rescale (Yu et al. 2024, equation 3), then sum_k w_k."""
    return (weight_K[:, None] * drop(update_KP, density, generator)).sum(0)


def dare_ties(update_KP: Tensor, weight_K: Tensor, density: float, generator: torch.Generator | None) -> Tensor:
    """Drop and rescale, elect a sign, weighted *sum* of the updates that agree.

    A sum (as in mergekit), where TIES takes a mean: a mean over the few that are left would undo what the rescaling
    is for, to keep the expected update.
    """
    dropped_KP = drop(update_KP, density, generator)
    return (weight_K[:, None] * dropped_KP * _elected(dropped_KP, weight_K)).sum(0)


def trim(update_KP: Tensor, density: float) -> Tensor:
    """Keep the share `density` of each row's elements, the largest in magnitude (at least one); set the rest to 0."""
    kept = max(1, round(density * update_KP.shape[1]))
    largest_Kk = update_KP.abs().topk(kept, dim=1).indices
    return torch.zeros_like(update_KP).scatter_(1, largest_Kk, update_KP.gather(1, largest_Kk))


def drop(update_KP: Tensor, density: float, generator: torch.Generator | None) -> Tensor:
    """Keep each element with probability `density`, divided by it; the rest becomes 0. The expected value is the
    input."""
    kept_KP = torch.rand(update_KP.shape, generator=generator) < density
    return update_KP * kept_KP.to(update_KP.device) / density


SPANNING: dict[str, Coefficients] = {
    "linear": average,
    "slerp": slerp,
    "multi-slerp": spherical_mean,
    "task-arithmetic": total,
    "interpolate": total,  # WiSE-FT (Wortsman et al. 2022): base + w (x - base), the task arithmetic of one model
}
BY_WEIGHTS = frozenset({"linear", "task-arithmetic", "interpolate"})
"""Methods of `SPANNING` whose coefficients are the weights' alone: nobody needs the tensors' inner products."""
ELEMENTWISE: dict[str, Elementwise] = {"ties": ties, "dare-linear": dare_linear, "dare-ties": dare_ties}
METHODS = (*SPANNING, *ELEMENTWISE)
OF_UPDATES = frozenset({"task-arithmetic", "interpolate", *ELEMENTWISE})
"""Methods on the differences to the base; the others merge the weights themselves."""
TAKES = {"slerp": 2, "interpolate": 1}
"""Number of models that a method takes, where not any number."""
SIGNED = frozenset({"task-arithmetic", "dare-linear", "interpolate"})
"""Methods whose weights need not be shares of one whole."""


def merge(
    models: Sequence[Tensors],
    base: Tensors | None,
    method: str,
    weights: Sequence[float],
    *,
    density: float = 0.5,
    update_scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Merge models tensor by tensor; the result is float32, and nothing is changed in place.

    Args:
        models: name -> tensor of each, of the same names and shapes. Tensors of whole numbers must be equal.
        base: the same of the base that they were trained from. If None, the models are updates (differences to a base)
            themselves, and so is the result.
        method: one of `METHODS`.
        weights: one per model. linear, slerp, multi-slerp and ties use their proportions; the others as they are.
        density: ties and dare-*: the share of elements kept.
        update_scale: methods on updates: the merged update is multiplied by it (lambda in the papers).
        generator: dare-*: decides what is dropped; a CPU generator, torch's default one if None.

    Raises:
        UsageError: method, weights or density are impossible.
        ModelError: names or shapes differ.
    """
    check(method, weights, len(models), density)
    check_same_tensors([*models, *([] if base is None else [base])])
    weight_K = torch.tensor(weights, dtype=torch.float64)
    merged = {}
    for name in sorted(models[0]):
        first = models[0][name]
        if not first.is_floating_point():
            merged[name] = first
            continue
        values_KP = torch.stack([tensors[name].detach().float().flatten() for tensors in models])
        if method not in OF_UPDATES:
            merged[name] = _combine(values_KP, weight_K, method, density, generator).view(first.shape)
            continue
        origin_P = None if base is None else base[name].detach().float().flatten()
        update_KP = values_KP if origin_P is None else values_KP - origin_P
        update_P = _combine(update_KP, weight_K, method, density, generator) * update_scale
        merged[name] = (update_P if origin_P is None else origin_P + update_P).view(first.shape)
    return merged


def check(method: str, weights: Sequence[float], models: int, density: float) -> None:
    """Raise a `UsageError` unless the method can merge this number of models with these weights."""
    if method not in METHODS:
        raise UsageError(f"method = {method!r}", possible=", ".join(METHODS))
    if models != TAKES.get(method, models) or models < 1:
        fix = "Use multi-slerp for any number." if method == "slerp" else "Merge several with linear."
        raise UsageError(f"{method} of {models} models", possible=f"{TAKES.get(method, 'one or more')}", fix=fix)
    if len(weights) != models:
        raise UsageError(f"{len(weights)} weights for {models} models", possible="one weight per model, in order")
    if not all(map(math.isfinite, weights)):
        raise UsageError(f"weights = {_shown(weights)}", possible="finite numbers")
    if method not in SIGNED and (min(weights) < 0 or sum(weights) <= 0):
        raise UsageError(f"weights = {_shown(weights)} with {method}", possible="0 or more, not all 0")
    if not 0 < density <= 1:
        raise UsageError(f"density = {density}", possible="above 0, up to 1")


def check_same_tensors(models: Sequence[Tensors]) -> None:
    """Raise a `ModelError` unless all models have tensors of the same names and shapes."""
    first = models[0]
    for number, other in enumerate(models[1:], 2):
        if alone := sorted(first.keys() ^ other.keys()):
            whose = "the first" if alone[0] in first else f"number {number}"
            raise ModelError(
                f"the models have different tensors: only {whose} has {alone[0]} ({len(alone)} such names in all)",
                fix="Merge models of one architecture.",
            )
        for name, tensor in first.items():
            if tensor.shape != other[name].shape:
                raise ModelError(
                    f"{name} has the shape {tuple(tensor.shape)} in the first model, "
                    f"{tuple(other[name].shape)} in number {number}",
                    fix="Merge models of one architecture and vocabulary.",
                )
            if not tensor.is_floating_point() and not torch.equal(tensor, other[name]):
                raise ModelError(f"{name} holds whole numbers, which differ between the models and cannot be merged")


def fold(weight_OI: Tensor, A_rI: Tensor, B_Or: Tensor) -> Tensor:
    """W + B A as float32 [d_out, d_in]; nothing is changed in place. B comes with alpha / rank folded in."""
    return torch.addmm(weight_OI.detach().float(), B_Or.detach().float(), A_rI.detach().float())


def merge_into(model: nn.Module) -> None:
    """Replace every LoraLinear of `model` by a plain Linear that computes the same.

    Load the base in float32 before: the merged weights are float32, whatever the base was.

    Raises:
        ModelError: a base is quantised: its weight is not what the adapter was trained beside to the last digit, and
            rounding W + B A again would lose the adapter.
        UsageError: several adapters are stacked: it is not clear which one is meant.
    """
    if any(isinstance(module, LoraSetLinear) for module in model.modules()):
        raise UsageError("a set of adapters is attached, one can be merged", fix="Attach it with attach_weights.")
    merged = {name: _merged(name, layer) for name, layer in lora_layers(model).items()}
    for name, linear in merged.items():
        replace_module(model, name, linear)


def _merged(name: str, layer: LoraLinear) -> nn.Linear:
    base = layer.base
    if not isinstance(base, nn.Linear) or not base.weight.is_floating_point():
        raise ModelError(
            f"{name} cannot take the adapter into its weight: its base is a {type(base).__name__}, which is quantised",
            fix="Load the base in float32, attach the adapter, merge, and quantise the result.",
        )
    if layer.adapters != 1:
        raise UsageError(f"{layer.adapters} adapters are attached, one can be merged", fix="Attach only the one.")
    A_KrI, B_KOr = layer.weights()
    linear = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    linear.weight = nn.Parameter(fold(base.weight, A_KrI[0], B_KOr[0]), requires_grad=base.weight.requires_grad)
    if base.bias is not None:
        linear.bias = nn.Parameter(base.bias.detach().float(), requires_grad=base.bias.requires_grad)
    return linear


def _combine(
    values_KP: Tensor, weight_K: Tensor, method: str, density: float, generator: torch.Generator | None
) -> Tensor:
    if method in ELEMENTWISE:
        return ELEMENTWISE[method](values_KP, weight_K.float(), density, generator)
    wide_KP = values_KP.double()
    return (SPANNING[method](wide_KP @ wide_KP.T, weight_K) @ wide_KP).float()


def _elected(update_KP: Tensor, weight_K: Tensor) -> Tensor:
    """True where an element has the sign of the weighted sum over the models, and neither is 0."""
    sign_P = (weight_K[:, None] * update_KP).sum(0).sign()
    return (update_KP.sign() == sign_P) & (sign_P != 0)


def _directions(gram_KK: Tensor, weight_K: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Shares of one whole, lengths, and cosines between the directions (None where a tensor is zero: it has none)."""
    lengths_K = gram_KK.diagonal().clamp_min(0).sqrt()
    known = bool((lengths_K > 0).all())
    cosine_KK = (gram_KK / torch.outer(lengths_K, lengths_K)).clamp(-1, 1) if known else None
    return weight_K / weight_K.sum(), lengths_K, cosine_KK


def _length(coefficient_K: Tensor, cosine_KK: Tensor) -> float:
    """Length of a weighted sum of unit vectors."""
    return math.sqrt(max(0.0, float(coefficient_K @ cosine_KK @ coefficient_K)))


def _shown(weights: Sequence[float]) -> str:
    return ",".join(f"{weight:g}" for weight in weights)
