"""Learning from a teacher: from its scores of a row's documents, or from its vectors.

Legend: N rows, G documents per row (the positive first; rows of fewer are padded), U texts, D and T vector sizes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core.losses.vectors import cosines, row_cosines


def margin_mse(cosine_NG: Tensor, score_NG: Tensor, present_NG: Tensor) -> Tensor:
    """Mean squared difference of the student's and the teacher's margins, positive minus negative.

    Args:
        cosine_NG: of each row's anchor and its own documents, the positive first.
        score_NG: the teacher's scores of the same.
        present_NG: False where padded.

    Source: Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation", eq. 8.
    """
    student = cosine_NG[:, :1] - cosine_NG[:, 1:]
    teacher = (score_NG[:, :1] - score_NG[:, 1:]).to(student.dtype)
    present = present_NG[:, 1:]
    return F.mse_loss(student[present], teacher[present])


def kl_divergence(
    cosine_NG: Tensor,
    score_NG: Tensor,
    present_NG: Tensor,
    temperature: float | Tensor,
    teacher_temperature: float,
) -> Tensor:
    """KL divergence from the teacher's distribution over a row's documents to the student's, mean over the rows.

    Args:
        cosine_NG: of each row's anchor and its own documents.
        score_NG: the teacher's scores of the same.
        present_NG: False where padded.
        temperature: of the student's softmax.
        teacher_temperature: of the teacher's softmax.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", without its factor temperature^2: the
    two temperatures differ here, and the factor would only scale the loss.
    """
    absent_NG = ~present_NG
    # A large negative number, not minus infinity: 0 * -inf would be no number.
    lowest = torch.finfo(cosine_NG.dtype).min / 2
    student_NG = (cosine_NG / temperature).masked_fill(absent_NG, lowest).log_softmax(dim=1)
    teacher_NG = score_NG.to(cosine_NG.dtype) / teacher_temperature
    teacher_NG = teacher_NG.masked_fill(absent_NG, lowest).softmax(dim=1)
    return F.kl_div(student_NG, teacher_NG, reduction="batchmean")


def vector_distillation(vector_UD: Tensor, teacher_UT: Tensor) -> Tensor:
    """How far the student's vectors are from a teacher's.

    If they have the same size: the mean of 1 - cosine, text by text. If not: the mean squared difference of the two
    models' cosines between the batch's texts, which needs no projection that would be thrown away after training
    (Tung & Mori 2019, "Similarity-Preserving Knowledge Distillation", eq. 4, on cosines).

    Args:
        vector_UD: unit rows of the student.
        teacher_UT: unit rows of the teacher, of the same texts.
    """
    if vector_UD.shape[1] == teacher_UT.shape[1]:
        return mean_distance(vector_UD, teacher_UT)
    student_UU = cosines(vector_UD, vector_UD)
    return F.mse_loss(student_UU, cosines(teacher_UT, teacher_UT).to(student_UU.dtype))


def mean_distance(vector_UD: Tensor, reference_UD: Tensor) -> Tensor:
    """Mean of 1 - cosine between a model's vectors and another model's (a teacher's, the base's) of the same texts."""
    return (1 - row_cosines(vector_UD, reference_UD)).mean()
