"""Which documents may count as negatives: masks inside a training batch.

Legend: N training rows, M candidate documents of the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def identity_mask(
    anchors: Sequence[Hashable],
    documents: Sequence[Hashable],
    target_N: Tensor,
    positives: Mapping[Hashable, Collection[Hashable]],
) -> Tensor:
    """Candidates that are no negatives because of what they say, not of how they score.

    Masked for a row: every other positive of the same anchor (over the whole training set, whatever brought it into
    this batch), and a document whose text is the anchor's. Texts are compared as they are given: give what two texts
    share that are the same (`core.same_text`).

    Args:
        anchors: [N] the rows' query texts, or their keys.
        documents: [M] the candidates' texts, or their keys; one that comes twice is masked twice.
        target_N: index of each row's positive among the candidates; never masked.
        positives: anchor -> all its positives in the training set.

    Returns:
        bool [N, M] on the CPU, True where excluded.
    """
    columns: dict[Hashable, list[int]] = {}
    for column, text in enumerate(documents):
        columns.setdefault(text, []).append(column)
    mask = np.zeros((len(anchors), len(documents)), dtype=bool)
    for row, anchor in enumerate(anchors):
        for text in (anchor, *positives.get(anchor, ())):
            mask[row, columns.get(text, [])] = True
    mask[np.arange(len(anchors)), target_N.cpu().numpy()] = False
    return torch.from_numpy(mask)


def related_mask(row_keys: Sequence[Collection[Hashable]], candidate_keys: Sequence[Collection[Hashable]]) -> Tensor:
    """Candidates that share a key with a row, and so are no negatives. For the blocks other than query-document.

    Among queries the keys are a query's text and its positives, among documents a document's text and its anchors: two
    queries belong together if they say the same or have a positive in common, two documents if they say the same or
    answer the same anchor. Between a document in the row and queries, the document's only key is its text.

    Args:
        row_keys: [N] keys of what stands in each row.
        candidate_keys: [M] keys of each candidate.

    Returns:
        bool [N, M] on the CPU, True where excluded.
    """
    columns: dict[Hashable, list[int]] = {}
    for column, keys in enumerate(candidate_keys):
        for key in keys:
            columns.setdefault(key, []).append(column)
    mask = np.zeros((len(row_keys), len(candidate_keys)), dtype=bool)
    for row, keys in enumerate(row_keys):
        for key in keys:
            mask[row, columns.get(key, [])] = True
    return torch.from_numpy(mask)


def margin_mask(
    cosine_NM: Tensor,
    positive_N: Tensor,
    absolute_margin: float | None,
    relative_margin: float | None = None,
) -> Tensor:
    """Likely positives: candidates whose raw cosine is above the positive's cosine plus a margin.

    The cosines may be the model's own or those of a guide (Solatorio 2024, "GISTEmbed"), of any block: each row's
    threshold is the cosine of its anchor and its positive. The caller has to spare the targets.

    Args:
        cosine_NM: cosines before the temperature; no gradient flows through the threshold.
        positive_N: cosine of each row's anchor and positive.
        absolute_margin: masked above positive + absolute_margin; a negative margin also masks what is just below the
            positive; None: no such mask.
        relative_margin: masked above positive + |positive| * relative_margin; None: no such mask.

    Returns:
        bool [N, M], True where either margin is exceeded.

    Source: Zhang et al. 2025, "Qwen3 Embedding", eq. 2 (there with an absolute margin of 0.1).
    """
    cosine_NM, positive_N1 = cosine_NM.detach(), positive_N.detach()[:, None]
    mask_NM = torch.zeros_like(cosine_NM, dtype=torch.bool)
    if absolute_margin is not None:
        mask_NM |= cosine_NM > positive_N1 + absolute_margin
    if relative_margin is not None:
        mask_NM |= cosine_NM > positive_N1 + positive_N1.abs() * relative_margin
    return mask_NM


def own_mask(negatives: Sequence[Collection[int]], count: int) -> Tensor:
    """Mark each row's own drawn negatives, which the margins spare unless `mask_mined` is set: bool [N, count].

    Args:
        negatives: per row the columns of its own negatives.
        count: number of candidates.
    """
    mask = np.zeros((len(negatives), count), dtype=bool)
    for row, columns in enumerate(negatives):
        mask[row, list(columns)] = True
    return torch.from_numpy(mask)
