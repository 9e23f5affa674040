"""Which documents may count as negatives: masks inside a training batch.

Legend: N training rows, M candidate documents of the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def identity_mask(
    anchors: Sequence[str], documents: Sequence[str], target_N: Tensor, positives: Mapping[str, Collection[str]]
) -> Tensor:
    """Candidates that are no negatives because of what they say, not of how they score.

    Masked for a row: every other positive of the same anchor (over the whole training set, whatever brought it into
    this batch), and a document whose text is the anchor's.

    Args:
        anchors: [N] the rows' query texts.
        documents: [M] the candidates' texts.
        target_N: index of each row's positive among the candidates; never masked.
        positives: anchor -> all its positives in the training set.

    Returns:
        bool [N, M] on the CPU, True where excluded.
    """
    column = {text: index for index, text in enumerate(documents)}
    mask = np.zeros((len(anchors), len(documents)), dtype=bool)
    for row, anchor in enumerate(anchors):
        same = [column[text] for text in positives.get(anchor, ()) if text in column]
        mask[row, same] = True
        if anchor in column:
            mask[row, column[anchor]] = True
    mask[np.arange(len(anchors)), target_N.cpu().numpy()] = False
    return torch.from_numpy(mask)


def margin_mask(cosine_NM: Tensor, target_N: Tensor, margin: float) -> Tensor:
    """Likely positives: candidates whose raw cosine is above the positive's cosine + margin.

    Args:
        cosine_NM: cosines before the temperature; no gradient flows through the threshold.
        target_N: index of each row's positive; never masked.
        margin: may be negative, then candidates close below the positive go too.

    Returns:
        bool [N, M], True where excluded.

    Source: Zhang et al. 2025, "Qwen3 Embedding", eq. 2 (there with a margin of 0.1).
    """
    cosine_NM = cosine_NM.detach()
    mask_NM = cosine_NM > cosine_NM.gather(1, target_N[:, None]) + margin
    return mask_NM.scatter_(1, target_N[:, None], False)


def own_mask(negatives: Sequence[Collection[int]], count: int) -> Tensor:
    """bool [N, count]: True at each row's own drawn negatives, which the margin spares unless it is asked not to.

    Args:
        negatives: per row the columns of its own negatives.
        count: M.
    """
    mask = np.zeros((len(negatives), count), dtype=bool)
    for row, columns in enumerate(negatives):
        mask[row, list(columns)] = True
    return torch.from_numpy(mask)
