"""Which texts are computed together, and in which order. Numpy only: no tensors, no model.

N texts; lengths are in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def chunks_by_tokens(lengths: Sequence[int] | NDArray[np.integer], max_tokens: int) -> list[NDArray[np.int64]]:
    """Cut texts into chunks of at most `max_tokens` tokens, longest texts first.

    Texts of one length stay neighbours, which is what packed attention batches. The longest come first, so that
    a chunk that does not fit into memory fails at once, not after an hour.

    Args:
        lengths: tokens per text.
        max_tokens: budget of one chunk; a longer text is a chunk of its own.

    Returns:
        Indices into `lengths`; every index occurs once. Ties keep their order, so the result is reproducible.
    """
    lengths_N = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths_N, kind="stable").astype(np.int64)
    ends = np.cumsum(lengths_N[order])
    chunks: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        used = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, used + max_tokens, side="right")), start + 1)
        chunks.append(order[start:stop])
        start = stop
    return chunks


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of `count` examples in one pass: a permutation, a function of (seed, epoch) and nothing else."""
    return np.random.default_rng([_unsigned(seed), epoch]).permutation(count).astype(np.int64)


def step_seed(seed: int, step: int, chunk: int = 0) -> int:
    """A seed in [0, 2^63) for the random numbers of one chunk of one step; no state to restore on resume."""
    state = np.random.SeedSequence([_unsigned(seed), step, chunk]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _unsigned(seed: int) -> int:
    return seed % 2**64
