"""Sharing a sequence among processes, and putting the shares together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from acclimate import processes

Number = TypeVar("Number", bound=np.generic)


def stride(items: Any) -> Any:
    """Take this process's share of a sequence: of n processes, each takes every n-th item."""
    return items[processes.index() :: processes.count()]


def joined(shares: Sequence[NDArray[Number]]) -> NDArray[Number]:
    """Put the processes' shares together, in the order of the whole."""
    if len(shares) == 1:
        return shares[0]
    whole = np.empty((sum(map(len, shares)), *shares[0].shape[1:]), shares[0].dtype)
    for start, share in enumerate(shares):
        whole[start :: len(shares)] = share
    return whole
