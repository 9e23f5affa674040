"""One index's documents and vectors into another one, nothing encoded again; and whether both then answer alike.

Shapes: D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from acclimate.core.batching import batched
from acclimate.errors import StorageError
from acclimate.progress import progress
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Query, Stored

BATCH = 500
SAMPLED = 100
"""Documents whose neighbours are compared."""
NEIGHBOURS = 10
LEAST_RECALL = 0.99
HALF_PRECISION = 2e-3
"""How far scores of one pair may be apart: both backends keep 16 bits of a vector's values, each in its own way."""


class Moved(NamedTuple):
    """What a move did."""

    documents: int
    written: int
    """The rest was there from an earlier start."""
    sample: tuple[Stored, ...]
    """Some of the documents, evenly over all, for `compare`."""


class Agreement(NamedTuple):
    """How two indexes answer the same searches."""

    documents: int
    sampled: int
    recall: float
    """Share of the first index's nearest neighbours that the second one gives too."""


def move(source: Index, target: Index, *, label: str = "") -> Moved:
    """Copy all documents with their vectors; what the target holds already, from an earlier start, is left as it is.

    Args:
        source: an index.
        target: another one, of the same space.
        label: shown with a progress bar; silent if empty.
    """
    total = source.count()
    is_new = target.count() == 0
    every = max(1, total // SAMPLED)
    sample: list[Stored] = []
    written = seen = 0
    with progress(label, total, "documents") as advance:
        for batch in batched(source.iterate(), BATCH):
            there = {} if is_new else target.get([stored.document.id for stored in batch])
            new = [stored for stored in batch if not _is_kept(stored, there.get(stored.document.id))]
            if new:
                target.upsert([stored.document for stored in new], np.stack([stored.vector for stored in new]))
            sample += [stored for place, stored in enumerate(batch, seen) if place % every == 0]
            written += len(new)
            seen += len(batch)
            advance(len(batch))
    return Moved(seen, written, tuple(sample[:SAMPLED]))


def compare(source: Index, target: Index, sample: Sequence[Stored], *, neighbours: int = NEIGHBOURS) -> Agreement:
    """Compare the numbers of documents, and the neighbours of some of them.

    Args:
        source: an index.
        target: what it was moved to.
        sample: documents of both.
        neighbours: how many of each are compared.

    Raises:
        StorageError: the numbers differ, or the target finds less than `LEAST_RECALL` of the source's neighbours.
    """
    counts = source.count(), target.count()
    if counts[0] != counts[1]:
        others = _only_in(target, source)
        raise StorageError(
            f"the index moved from has {counts[0]:,} documents, the one moved to {counts[1]:,}"
            + (f", of which the first lacks {', '.join(repr(name[:40]) for name in others)}" if others else ""),
            fix="Remove from the second what does not belong there (--delete ids.txt), or move to another name.",
        )
    found = wanted = 0
    for stored in sample:
        query = Query(vector=stored.vector, mode="dense", top_k=neighbours)
        ours, theirs = source.search(query), target.search(query)
        ids = {hit.id for hit in theirs}
        least = theirs[-1].score if theirs else np.inf
        # A neighbour whose score is that of the last place may have given way to its equal.
        found += sum(hit.id in ids or hit.score <= least + HALF_PRECISION for hit in ours)
        wanted += len(ours)
    recall = found / max(wanted, 1)
    if recall < LEAST_RECALL:
        raise StorageError(
            f"of the neighbours of {len(sample)} documents the index moved to finds {recall:.1%}",
            possible=f"{LEAST_RECALL:.0%} or more",
            fix="Start the command again; if it stays so, move to another name.",
        )
    return Agreement(counts[0], len(sample), recall)


def _is_kept(stored: Stored, there: Stored | None) -> bool:
    return (
        there is not None
        and there.document == stored.document
        and bool(np.allclose(there.vector, stored.vector, atol=HALF_PRECISION))
    )


def _only_in(index: Index, other: Index, most: int = 3) -> list[str]:
    """Some ids that an index has and another one lacks."""
    found: list[str] = []
    for batch in batched(index.iterate(), BATCH):
        there = other.get([stored.document.id for stored in batch])
        found += [stored.document.id for stored in batch if stored.document.id not in there]
        if len(found) >= most:
            break
    return found[:most]
