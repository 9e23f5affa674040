"""The one way of texts and of pairs through a model: each of them once, chunk by chunk, every result to its place."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from acclimate.cpu import adjust_threads

Row = TypeVar("Row", bound=Hashable)


def unique_rows(rows: Iterable[Row]) -> tuple[list[Row], NDArray[np.int64]]:
    """The different rows in the order in which they first occur, and for each given row its place among them."""
    place_of: dict[Row, int] = {}
    places = [place_of.setdefault(row, len(place_of)) for row in rows]
    return list(place_of), np.array(places, np.int64)


def fill(
    out: NDArray[np.float32],
    chunks: Sequence[NDArray[np.int64]],
    forward: Callable[[NDArray[np.int64]], Tensor],
    done: Callable[[NDArray[np.int64]], None],
) -> None:
    """Compute chunk by chunk into the rows of `out`.

    Args:
        out: [N] or [N, D].
        chunks: rows of `out`.
        forward: a chunk's results in the order of the chunk. The next one is on its way when a result is fetched, so
            that a GPU does not wait.
        done: told of each chunk that is in its place.
    """
    for chunk, result in _one_behind((chunk, forward(chunk)) for chunk in chunks):
        out[chunk] = result.cpu().numpy()
        done(chunk)
        if result.device.type == "cpu":
            adjust_threads()


def _one_behind(computed: Iterator[tuple[NDArray[np.int64], Tensor]]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    before = next(computed, None)
    while before is not None:
        after = next(computed, None)
        yield before
        before = after
