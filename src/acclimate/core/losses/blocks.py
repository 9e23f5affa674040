"""Cosines of each row with the texts of the batch that it is compared with.

A row is an anchor and its positive. Legend: N rows, U distinct queries of the batch, M distinct documents, D vector
size.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

from torch import Tensor

from acclimate.core.losses.vectors import cosines
from acclimate.types import Block

BLOCKS: tuple[Block, ...] = get_args(Block)


def block_cosines(
    blocks: Collection[Block], query_UD: Tensor, document_MD: Tensor, anchor_N: Tensor, target_N: Tensor
) -> dict[Block, Tensor]:
    """Cosines of every row with its candidates, block by block: [N, M] with documents, [N, U] with queries.

    Args:
        blocks: which blocks.
        query_UD: unit rows, every query of the batch once.
        document_MD: unit rows, every document of the batch once.
        anchor_N: each row's anchor among the queries (int64).
        target_N: each row's positive among the documents (int64).
    """
    rows = {"query": (query_UD, anchor_N), "document": (document_MD, target_N)}
    cosine: dict[Block, Tensor] = {}
    for block in BLOCKS:
        if block in blocks:
            row, candidate = block.split("-")
            vectors, index_N = rows[row]
            cosine[block] = cosines(vectors[index_N], rows[candidate][0])
    return cosine
