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
RETAIN_WEIGHT = 20.0
"""Default weight of retained out-of-domain texts: chosen on dev, docs/results.md."""
INFO_NCE_ONLY = ("blocks", "partition", "temperature_kind", "hardness_strength", "guide")
"""Settings that mean nothing to the other losses, which refuse them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """What the training minimises."""

    loss: Loss = "auto"
    """auto takes info-nce for retrieval data and cosine-mse for labelled pairs. Labelled pairs: cosine-mse, cosent,
    angle, contrastive, online-contrastive, binary. Own negatives: triplet; with a teacher's scores: margin-mse, kl.
    Any texts: embedding-distillation."""
    blocks: tuple[Block, ...] = ("query-document",)
    """What InfoNCE compares: query-document, query-query, document-document (together in one softmax), and
    document-query (each positive finds its query)."""
    partition: Literal["per-direction", "joint"] = "per-direction"
    """document-query as a softmax of its own, averaged with the first; or in the same softmax as the other blocks."""
    temperature: float = 0.05
    """Cosines are divided by it, in InfoNCE, cosent, angle, binary and kl."""
    temperature_kind: Literal["fixed", "learned", "adaptive"] = "fixed"
    """Of InfoNCE. learned: trained, from temperature on, above 0.01. adaptive: by the lexicon's terms in each anchor,
    max(temperature_floor, temperature_base - temperature_step * terms)."""
    temperature_base: float = 0.08
    """Adaptive temperature of an anchor without a term of the lexicon."""
    temperature_step: float = 0.01
    """How much lower the adaptive temperature is for every term in the anchor."""
    temperature_floor: float = 0.03
    """The adaptive temperature falls no lower."""
    hardness_strength: float = 0.0
    """InfoNCE's negatives are weighted by exp(this * cosine), the harder the more; 9 in LLaVE, 0: all alike."""
    false_negative_margin: float | None = 0.1
    """In-batch candidates whose cosine is above the positive's plus this do not count as negatives; none: all do."""
    false_negative_relative_margin: float | None = None
    """As false_negative_margin, above positive + |positive| * this; with both, either is enough."""
    mask_mined: bool = False
    """Apply the false-negative margins, and the guide's, to mined negatives too."""
    guide: str | None = None
    """Model (or run, or adapter) whose cosines also tell likely positives among the candidates (GISTEmbed)."""
    guide_margin: float | None = 0.0
    """Candidates whose cosine by the guide is above its cosine of the positive plus this are not counted."""
    guide_relative_margin: float | None = None
    """As guide_margin, above positive + |positive| * this; with both, either is enough."""
    contrastive_margin: float = 0.5
    """contrastive, online-contrastive: negatives at a distance (1 - cosine) above it are far enough."""
    triplet_margin: float = 0.2
    """triplet: by how much the positive's cosine should be above a negative's."""
    cosine_threshold: float = 0.5
    """binary: the cosine at which a pair is as likely positive as negative."""
    teacher_temperature: float = 1.0
    """margin-mse, kl: the teacher's scores are divided by it. Reranker logits need more, cosines less than 1."""
    embedding_teacher: str | None = None
    """embedding-distillation: model (or run, or adapter) whose vectors are imitated; where its size is another, its
    cosines between the texts."""
    retain_data: str | None = None
    """Out-of-domain texts (a text file, or any data) whose vectors should stay where the base puts them, so that the
    model forgets less. Some of them join every step."""
    retain_weight: float | None = None
    """Weight of the distance (1 - cosine) between the model's vectors and the base's, added to any loss: of
    retain_data's texts where they are given (default 20), of the training's own texts otherwise (default 0)."""
    matryoshka_dims: tuple[int, ...] = ()
    """Also minimise the loss over so many leading dimensions; the full size is always among them."""
    matryoshka_weights: tuple[float, ...] = ()
    """Weight of each of matryoshka_dims; 1 if not given, as for the full size."""

    def __post_init__(self) -> None:
        for name in ("temperature", "temperature_base", "temperature_floor", "teacher_temperature"):
            check_above(name, getattr(self, name), 0.0)
        for name in ("temperature_step", "hardness_strength", "retain_weight", "contrastive_margin", "triplet_margin"):
            if (getattr(self, name) or 0.0) < 0:
                raise UsageError(f"{name} = {getattr(self, name)}", possible="0 or more")
        if self.retain_weight == 0 and self.retain_data is not None:
            raise UsageError("retain_data with retain_weight = 0 retains nothing", fix="Leave one of them out.")
        unknown = sorted(set(self.blocks) - set(BLOCKS))
        if unknown or not self.blocks:
            raise UsageError(f"blocks = {','.join(self.blocks) or 'none'}", possible=f"some of {', '.join(BLOCKS)}")
        if self.temperature_kind == "learned":
            check_above("temperature", self.temperature, LOWEST_LEARNED_TEMPERATURE)
        if self.guide is not None and self.guide_margin is None and self.guide_relative_margin is None:
            raise UsageError("a guide without a margin masks nothing", fix="Give --guide-margin 0.")
        self._check_dims()
        self._check_loss()

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
            found = f"{len(self.matryoshka_weights)} matryoshka_weights for {len(self.matryoshka_dims)} matryoshka_dims"
            raise UsageError(found, possible="one weight for each, or none")
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
        """The same settings for another loss, without those that it would refuse: for one dataset among several."""
        if loss not in get_args(Loss):
            raise UsageError(f"loss = {loss!r}", possible=", ".join(get_args(Loss)))
        changed: dict[str, Any] = {"loss": loss}
        if loss not in ("auto", "info-nce"):
            changed |= {item.name: item.default for item in fields(self) if item.name in INFO_NCE_ONLY}
        if loss != "embedding-distillation":
            changed["embedding_teacher"] = None
        return replace(self, **changed)
