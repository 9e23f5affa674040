"""Which task a training step belongs to, where several share a training. Numpy only.

T tasks. A pass has as many steps as all tasks together have batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from acclimate.core.batching import epoch_order


def steps_of_tasks(batches: Sequence[int], sizes: Sequence[int], temperature: float) -> list[int]:
    """Steps of each task in a pass, in proportion to size ** (1 / temperature), and at least one.

    Temperature 1 gives every task one step per batch; a higher one gives small tasks more steps (they go through their
    examples several times in a pass) and large ones fewer (they go on in the next pass). The steps add up to the number
    of batches; what rounding down leaves goes to the largest remainders.

    Source: Conneau et al. 2020, "Unsupervised Cross-lingual Representation Learning at Scale", equation in 3.1, with
    alpha = 1 / temperature.

    Args:
        batches: number of batches in a pass through each task.
        sizes: number of examples of each task.
        temperature: above 0.
    """
    if temperature == 1.0:
        return list(batches)
    total = sum(batches)
    log_T = np.log(np.asarray(sizes, np.float64)) / temperature
    weight_T = np.exp(log_T - log_T.max())
    quota_T = np.round(total * weight_T / weight_T.sum(), 9)  # so that equal remainders are equal
    steps_T = np.maximum(np.floor(quota_T).astype(np.int64), 1)
    while steps_T.sum() < total:
        steps_T[np.argmax(quota_T - steps_T)] += 1
    while steps_T.sum() > total:
        steps_T[np.argmin(np.where(steps_T > 1, quota_T - steps_T, np.inf))] -= 1
    return [int(steps) for steps in steps_T]


def turns(steps_of_task: Sequence[int], seed: int, epoch: int) -> NDArray[np.int64]:
    """The task of every step of a pass, in random order: a function of (seed, pass) and of how many steps each has."""
    tasks = np.repeat(np.arange(len(steps_of_task), dtype=np.int64), steps_of_task)
    return tasks[epoch_order(len(tasks), seed, epoch)]
