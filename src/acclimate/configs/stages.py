"""Settings of `adapt`'s recipe: training in one stage, or in three; proof by a test split, or by folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acclimate.configs.checks import check_above, check_at_least
from acclimate.errors import UsageError

WEAK_KINDS = ("title", "neighbours", "crop")


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesConfig:
    """One stage, or three: weak pairs, fine-tuning, a merge. And how the gain is proven."""

    recipe: Literal["one-stage", "three-stage"] = "one-stage"
    """three-stage: train on weak pairs made from the corpus, fine-tune with negatives mined by that model, then merge
    both with the base. A stage that does not help on dev is dropped."""
    folds: int | None = None
    """Cross-validation, for data too small for a test split of its own: the data is cut into this many folds, an
    adapter is trained for each on the others and tested on it, the verdict is on all tested queries together, and the
    adapter that is kept is trained on all data. It takes as many trainings more, and excludes --test-fraction."""
    weak_pairs: tuple[str, ...] = WEAK_KINDS
    """Kinds of weak pairs. title: title and body; neighbours: consecutive passages of a long document; crop: two spans
    of one text."""
    weak_limit: int = 50_000
    """Largest number of weak pairs of each kind."""
    weak_epochs: float = 1.0
    """Number of passes over the weak pairs."""

    def __post_init__(self) -> None:
        if self.folds is not None:
            check_at_least("folds", self.folds, 2)
        check_at_least("weak_limit", self.weak_limit, 1)
        check_above("weak_epochs", self.weak_epochs, 0.0)
        if wrong := [kind for kind in self.weak_pairs if kind not in WEAK_KINDS]:
            raise UsageError(f"weak_pairs: {wrong[0]!r}", possible=", ".join(WEAK_KINDS))
        if not self.weak_pairs:
            raise UsageError("weak_pairs is empty", possible=", ".join(WEAK_KINDS))
