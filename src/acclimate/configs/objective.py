"""Settings of the loss."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from acclimate.configs.checks import check_above, check_at_least
from acclimate.errors import UsageError
from acclimate.types import Block

Loss: TypeAlias = Literal[
    "auto",
    "info-nce",
    "cosine-mse",
    "cosent",
    "angle",
    "contrastive",
    "online-contrastive",
    "binary",
    "triplet",
    "margin-mse",
    "kl",
    "embedding-distillation",
]
BLOCKS = get_args(Block)
LOWEST_LEARNED_TEMPERATURE = 0.01
"""CLIP's bound on its logit scale, 100."""
LOWEST_OF_START = 0.2
"""The same as a share of where a learned temperature starts, for models whose own is as low as CLIP's bound."""
TEMPERATURE_SPREADS = 0.45
"""Temperature in units of the spread of the base's scores (`core.spread`): 0.05 for all-MiniLM-L6-v2, 0.01 for
multilingual-e5-small."""
FALSE_NEGATIVE_SPREADS = 0.9
"""Margin of the in-batch mask, in the same units: 0.1 for all-MiniLM-L6-v2."""
UNMEASURED_TEMPERATURE = 0.05
"""Temperature where nothing is known: neither given, nor the family's, nor measured."""
ADAPTIVE = (1.6, 0.2, 0.6)
"""Base, step and floor of an adaptive temperature, in units of the temperature: 0.08, 0.01 and 0.03 of 0.05."""
RETAIN_WEIGHT = 20.0
"""Default weight of retained out-of-domain texts, chosen on dev (docs/results.md)."""
INFO_NCE_ONLY = ("blocks", "partition", "temperature_kind", "hardness_strength", "guide")
"""Settings of info-nce alone: with another loss they are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """The loss that training minimises."""

    loss: Loss = "auto"
    """auto takes info-nce for retrieval data and cosine-mse for labelled pairs. For labelled pairs: cosine-mse, cosent,
    angle, contrastive, online-contrastive, binary. For rows with negatives: triplet. For rows with a teacher's scores:
    margin-mse, kl. For any texts: embedding-distillation."""
    blocks: tuple[Block, ...] = ("query-document",)
    """What InfoNCE compares: query-document, query-query and document-document, together in one softmax, and
    document-query, where each positive has to find its query."""
    partition: Literal["per-direction", "joint"] = "per-direction"
    """per-direction: document-query has a softmax of its own, and the two losses are averaged; joint: one softmax over
    all blocks."""
    temperature: float | None = None
    """Divides the cosines in info-nce, cosent, angle, binary and kl. If not given: that of the model's family, where
    its authors say it (0.05 for all-MiniLM-L6-v2, 0.01 for E5); else 0.45 of the spread of the base's cosines (the
    standard deviation of a query's cosines with random documents)."""
    temperature_kind: Literal["fixed", "learned", "adaptive"] = "fixed"
    """Temperature of InfoNCE. learned: trained with the model, starting at temperature, always above a fifth of that,
    or above 0.01 where that is less. adaptive: max(temperature_floor, temperature_base - temperature_step * terms), by
    the lexicon's terms in each anchor."""
    temperature_base: float | None = None
    """adaptive: temperature of an anchor without a term of the lexicon; 1.6 * temperature if not given."""
    temperature_step: float | None = None
    """adaptive: how much each term in the anchor lowers the temperature; 0.2 * temperature if not given."""
    temperature_floor: float | None = None
    """adaptive: lowest temperature; 0.6 * temperature if not given."""
    hardness_strength: float = 0.0
    """info-nce: each negative is weighted by exp(hardness_strength * cosine), so hard ones count more. 9 in LLaVE; 0
    weights all alike."""
    false_negative_margin: float | None = None
    """In-batch candidates with a cosine above positive + false_negative_margin do not count as negatives."""
    false_negative_relative_margin: float | None = None
    """The same with a cosine above positive + |positive| * false_negative_relative_margin. With several margins,
    exceeding one is enough."""
    false_negative_spread_margin: float | Literal["auto"] | None = "auto"
    """The same with a cosine above positive + false_negative_spread_margin * spread, the spread being that of the
    base's cosines. auto: 0.9, unless another of these margins is given; none: no such mask."""
    mask_mined: bool = False
    """Apply the false-negative margins and the guide's margins to mined negatives too."""
    guide: str | None = None
    """Second model (or run, or adapter) whose cosines also decide which candidates are likely positives (GISTEmbed)."""
    guide_margin: float | None = 0.0
    """Candidates do not count as negatives if the guide's cosine is above its cosine of the positive + guide_margin."""
    guide_relative_margin: float | None = None
    """The same above positive + |positive| * guide_relative_margin. With both margins, exceeding one is enough."""
    contrastive_margin: float = 0.5
    """contrastive, online-contrastive: negatives at a larger distance (1 - cosine) are far enough."""
    triplet_margin: float = 0.2
    """triplet: how far the positive's cosine should be above a negative's."""
    cosine_threshold: float = 0.5
    """binary: cosine at which a pair is as likely positive as negative."""
    teacher_temperature: float = 1.0
    """margin-mse, kl: divides the teacher's scores. Use more than 1 for reranker logits, less than 1 for cosines."""
    embedding_teacher: str | None = None
    """embedding-distillation: model (or run, or adapter) whose vectors are imitated. If they have another size, its
    cosines between the texts are imitated instead."""
    retain_data: str | None = None
    """Out-of-domain texts (a text file, or any data) whose vectors should stay where the base puts them, so that the
    model forgets less. Some of them join every step."""
    retain_weight: float | None = None
    """Weight of the distance (1 - cosine) between the model's vectors and the base's, added to any loss: of
    retain_data's texts where they are given (default 20), of the training's own texts otherwise (default 0)."""
    matryoshka_dims: tuple[int, ...] = ()
    """Also minimise the loss over these numbers of leading dimensions (Matryoshka); the full size is always
    included."""
    matryoshka_weights: tuple[float, ...] = ()
    """Weight of each of matryoshka_dims; 1 if not given. The full size has weight 1."""

    def __post_init__(self) -> None:
        for name in ("temperature", "temperature_base", "temperature_floor", "teacher_temperature"):
            if (value := getattr(self, name)) is not None:
                check_above(name, value, 0.0)
        for name in ("temperature_step", "hardness_strength", "retain_weight", "contrastive_margin", "triplet_margin"):
            if (getattr(self, name) or 0.0) < 0:
                raise UsageError(f"{name} = {getattr(self, name)}", possible="0 or more")
        if self.retain_weight == 0 and self.retain_data is not None:
            raise UsageError("retain_data with retain_weight = 0 retains nothing", fix="Leave one of them out.")
        unknown = sorted(set(self.blocks) - set(BLOCKS))
        if unknown or not self.blocks:
            raise UsageError(f"blocks = {','.join(self.blocks) or 'none'}", possible=f"some of {', '.join(BLOCKS)}")
        if self.guide is not None and self.guide_margin is None and self.guide_relative_margin is None:
            raise UsageError("a guide without a margin masks nothing", fix="Give --guide-margin 0.")
        self._check_dims()
        self._check_loss()

    @property
    def effective_temperature(self) -> float:
        """`temperature`; where nothing was given or measured, a usual one."""
        return UNMEASURED_TEMPERATURE if self.temperature is None else self.temperature

    @property
    def lowest_learned(self) -> float:
        """The bound of a learned temperature."""
        return min(LOWEST_LEARNED_TEMPERATURE, LOWEST_OF_START * self.effective_temperature)

    @property
    def adaptive_temperatures(self) -> tuple[float, float, float]:
        """Base, step and floor of an adaptive temperature."""
        given = (self.temperature_base, self.temperature_step, self.temperature_floor)
        shares = zip(given, ADAPTIVE, strict=True)
        base, step, floor = (share * self.effective_temperature if one is None else one for one, share in shares)
        return base, step, floor

    @property
    def effective_spread_margin(self) -> float | None:
        """`false_negative_spread_margin` as a number; None where there is no such mask."""
        if self.false_negative_spread_margin != "auto":
            return self.false_negative_spread_margin
        given = (self.false_negative_margin, self.false_negative_relative_margin)
        return FALSE_NEGATIVE_SPREADS if given == (None, None) else None

    @property
    def effective_retain_weight(self) -> float:
        """`retain_weight`, or its default where it is not given; 0 retains nothing."""
        if self.retain_weight is not None:
            return self.retain_weight
        return 0.0 if self.retain_data is None else RETAIN_WEIGHT

    def _check_dims(self) -> None:
        for dim in self.matryoshka_dims:
            check_at_least("matryoshka_dims", dim, 1)
        if len(set(self.matryoshka_dims)) < len(self.matryoshka_dims):
            raise UsageError(f"matryoshka_dims = {self.matryoshka_dims} names a size twice")
        if self.matryoshka_weights and len(self.matryoshka_weights) != len(self.matryoshka_dims):
            raise UsageError(
                f"{len(self.matryoshka_weights)} matryoshka_weights for {len(self.matryoshka_dims)} matryoshka_dims",
                possible="one weight for each, or none",
            )
        for weight in self.matryoshka_weights:
            check_above("matryoshka_weights", weight, 0.0)

    def _check_loss(self) -> None:
        if (self.loss == "embedding-distillation") != (self.embedding_teacher is not None):
            if self.embedding_teacher is None:
                raise UsageError(
                    "embedding-distillation has no teacher", fix="Give one with --embedding-teacher MODEL."
                )
            raise UsageError(
                f"embedding_teacher with loss = {self.loss!r}",
                possible="embedding-distillation",
                fix="To mask likely positives by another model, give it as --guide.",
            )
        if self.loss in ("auto", "info-nce"):
            return
        for item in fields(self):
            if item.name in INFO_NCE_ONLY and getattr(self, item.name) != item.default:
                raise UsageError(
                    f"{item.name} = {getattr(self, item.name)!r} with loss = {self.loss!r}",
                    possible=f"only with info-nce; so are {', '.join(INFO_NCE_ONLY)}",
                )

    def with_loss(self, loss: str) -> ObjectiveConfig:
        """The same settings with another loss, without the settings that it refuses: for one dataset among several."""
        if loss not in get_args(Loss):
            raise UsageError(f"loss = {loss!r}", possible=", ".join(get_args(Loss)))
        changed: dict[str, Any] = {"loss": loss, **self.refused_by(loss)}
        return replace(self, **changed)

    def refused_by(self, loss: str) -> dict[str, Any]:
        """The settings that a loss refuses, at their defaults."""
        refused: dict[str, Any] = {}
        if loss not in ("auto", "info-nce"):
            refused |= {item.name: item.default for item in fields(self) if item.name in INFO_NCE_ONLY}
        if loss != "embedding-distillation":
            refused["embedding_teacher"] = None
        return refused
