"""Whether the vectors of somebody else's index are a model's of ours: texts encoded again, and compared.

Shapes: N texts, D dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from acclimate.retrieval.index.records import UNIT_TOLERANCE, Vectors

SAMPLED = 64
LEAST_COSINE = 0.999
"""The cosine of a stored vector with its text's, encoded again, at least. 16 bits and bfloat16 stay above it; another
prompt, pooling or adapter does not."""
LEAST_SHARE = 0.95
"""Share of the texts that reach it, at least: a few may have been changed, or cut elsewhere."""


class Likeness(NamedTuple):
    """Stored vectors beside those of their texts, encoded now."""

    sampled: int
    median_cosine: float
    least_cosine: float
    share: float
    """Share of the texts whose cosine is `LEAST_COSINE` or more."""
    are_units: bool

    @property
    def is_the_same(self) -> bool:
        """Whether the stored vectors are the model's."""
        return self.share >= LEAST_SHARE and self.are_units

    def __str__(self) -> str:
        return (
            f"of {self.sampled} texts encoded again {self.share:.0%} have a cosine of {LEAST_COSINE} or more with what "
            f"is stored; median {self.median_cosine:.4f}, least {self.least_cosine:.4f}"
        )


def likeness(stored_ND: Vectors, encoded_ND: Vectors) -> Likeness:
    """Compare stored vectors, of any length, with unit vectors, row by row; there is one row at least."""
    lengths = np.linalg.norm(stored_ND, axis=1)
    cosines = np.nan_to_num(np.einsum("nd,nd->n", stored_ND, encoded_ND) / np.maximum(lengths, 1e-12), nan=-1.0)
    return Likeness(
        sampled=len(cosines),
        median_cosine=float(np.median(cosines)),
        least_cosine=float(cosines.min()),
        share=float((cosines >= LEAST_COSINE).mean()),
        are_units=bool((np.abs(lengths - 1) <= UNIT_TOLERANCE).all()),
    )
