"""Settings of `vectors`."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorsConfig:
    """Forms in which document vectors can be stored, measured."""

    cut_dims: tuple[int, ...] = ()
    """Leading dimensions to which vectors are cut (Matryoshka); half and a quarter of the model's if none is given."""
    oversampling: int = 8
    """Candidates among binary vectors for each result; they are scored again by stored INT8 or by the query's own
    float32 values."""

    def __post_init__(self) -> None:
        check_at_least("oversampling", self.oversampling, 1)
        for dim in self.cut_dims:
            check_at_least("cut_dims", dim, 1)
