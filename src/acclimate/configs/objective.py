"""Settings of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from acclimate.configs.checks import check_above

Loss: TypeAlias = Literal["auto", "info-nce", "cosine-mse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """What the training minimises."""

    loss: Loss = "auto"
    """auto takes info-nce for retrieval data and cosine-mse for labelled pairs."""
    temperature: float = 0.05
    """Temperature of InfoNCE: cosines are divided by it."""
    false_negative_margin: float | None = 0.1
    """In-batch documents whose cosine is above the positive's plus this are not counted as negatives; none: all are."""
    mask_mined: bool = False
    """Apply the false-negative margin to mined negatives too."""

    def __post_init__(self) -> None:
        check_above("temperature", self.temperature, 0.0)
