"""Losses on a row's own documents: its positive and its negatives, nothing else of the batch.

Legend: N rows, G documents per row (the positive first; rows of fewer are padded), D vector size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def triplet(cosine_NG: Tensor, present_NG: Tensor, margin: float) -> Tensor:
    """Mean of max(0, margin + cosine(anchor, negative) - cosine(anchor, positive)) over all negatives of all rows.

    Args:
        cosine_NG: of each row's anchor and its own documents, the positive first.
        present_NG: False where padded.
        margin: by which the positive should be nearer, in cosine.

    Source: Schroff et al. 2015, "FaceNet", eq. 3, with the distance 1 - cosine.
    """
    losses_NG = F.relu(margin + cosine_NG[:, 1:] - cosine_NG[:, :1])
    return losses_NG[present_NG[:, 1:]].mean()
