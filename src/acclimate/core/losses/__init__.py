"""The losses of embedding training, as pure functions of unit vectors. One idea a file.

Temperatures are divided by, margins are on cosines, labels are in [0, 1]. Everything is computed in float32 at least.
"""

from acclimate.core.losses.blocks import BLOCKS, block_cosines
from acclimate.core.losses.distillation import kl_divergence, margin_mse, mean_distance, vector_distillation
from acclimate.core.losses.groups import triplet
from acclimate.core.losses.info_nce import Partition, info_nce, info_nce_blocks
from acclimate.core.losses.pairs import (
    angle,
    binary_cross_entropy,
    contrastive,
    cosent,
    cosine_mse,
    online_contrastive,
)
from acclimate.core.losses.temperature import adaptive_temperature, learned_temperature
from acclimate.core.losses.vectors import at_least_float32, cosines, narrowed, over_dims, row_cosines

__all__ = [
    "BLOCKS",
    "Partition",
    "adaptive_temperature",
    "angle",
    "at_least_float32",
    "binary_cross_entropy",
    "block_cosines",
    "contrastive",
    "cosent",
    "cosine_mse",
    "cosines",
    "info_nce",
    "info_nce_blocks",
    "kl_divergence",
    "learned_temperature",
    "margin_mse",
    "mean_distance",
    "narrowed",
    "online_contrastive",
    "over_dims",
    "row_cosines",
    "triplet",
    "vector_distillation",
]
