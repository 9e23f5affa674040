"""InfoNCE where a row may have several positives: images of one class are all positives of the class's texts.

Legend: N rows, M candidates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_positive_info_nce(logits_NM: Tensor, positive_NM: Tensor, target_N: Tensor | None = None) -> Tensor:
    """Cross-entropy of finding each row's positives among the candidates.

    Args:
        logits_NM: cosine / temperature.
        positive_NM: True where the candidate is a positive of the row.
        target_N: the one positive that each row has to find; its others are masked, neither found nor pushed away. If
            not given, the row loses the mean over its positives of -log p (Khosla et al. 2020, "Supervised Contrastive
            Learning", eq. 2, L_out); a row without one is left out.

    Returns:
        A scalar, the mean over the rows; 0 where no row has a positive.
    """
    logits_NM = logits_NM.float()
    if target_N is not None:
        others_NM = positive_NM.scatter(1, target_N[:, None], False)
        return F.cross_entropy(logits_NM.masked_fill(others_NM, -torch.inf), target_N)
    kept_N = positive_NM.any(1)
    if not kept_N.any():
        return logits_NM.sum() * 0.0
    log_p_NM = logits_NM[kept_N].log_softmax(1)
    weight_NM = positive_NM[kept_N].float()
    weight_NM = weight_NM / weight_NM.sum(1, keepdim=True)
    return -(log_p_NM * weight_NM).sum(1).mean()
