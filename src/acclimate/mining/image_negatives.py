"""Hard negative texts of images, mined across both modalities before there is anything that links them.

A text is hard for an image if it is close to the image's own texts, or if it belongs to images that look like it.

Shapes: N images, T texts, F features, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acclimate.errors import StorageError
from acclimate.files import iter_jsonl

NEGATIVES_FILE = "negatives.jsonl"
BLOCK_IMAGES = 512
SAME_MEANING = 0.98
"""A text whose cosine with an image's own one is higher says the same; it is no negative."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MinedTexts:
    """Hard negatives of one image: numbers of texts, and how they were found."""

    texts: tuple[int, ...]
    by_look: int
    """How many of them belong to images that look like it; the others are close to its own texts."""


def mine_texts(
    features_NF: Floats, text_TD: Floats, texts: Sequence[NDArray[np.int64]], groups_N: NDArray[np.int64], count: int
) -> list[MinedTexts]:
    """Mine hard negative texts for every image: half by look, half by the texts' meaning.

    Args:
        features_NF: of the training images, as the tower gives them; may be a memory map.
        text_TD: unit vectors of the training texts.
        texts: of each image, the numbers of its texts.
        groups_N: of each image: an image of the same group is no negative, nor are its texts.
        count: negatives per image, at most.
    """
    mean_F = np.mean(features_NF, axis=0)
    found: list[MinedTexts] = []
    unit_NF = _unit(np.asarray(features_NF) - mean_F)
    for start in range(0, len(texts), BLOCK_IMAGES):
        rows = range(start, min(start + BLOCK_IMAGES, len(texts)))
        look_BN = unit_NF[start : start + len(rows)] @ unit_NF.T
        look_BN[groups_N[None] == groups_N[list(rows), None]] = -np.inf
        order_BK = np.argsort(-look_BN, axis=1, kind="stable")[:, : 4 * count]
        for place, row in enumerate(rows):
            own = texts[row]
            close_T = (text_TD @ text_TD[own].T).max(1)
            banned = (close_T > SAME_MEANING) | np.isin(np.arange(len(text_TD)), own)
            near = [other for other in order_BK[place] if np.isfinite(look_BN[place, other])]
            looks = dict.fromkeys(int(text) for other in near for text in texts[other][:1] if not banned[text])
            by_look = list(looks)[: count // 2]
            banned[by_look] = True
            meant = np.argsort(-np.where(banned, -np.inf, close_T), kind="stable")[: count - len(by_look)]
            by_text = [int(text) for text in meant if not banned[text]]
            found.append(MinedTexts((*by_look, *by_text), len(by_look)))
    return found


def _unit(vectors_NF: Floats) -> Floats:
    length = np.linalg.norm(vectors_NF, axis=1, keepdims=True)
    return np.asarray(vectors_NF / np.maximum(length, 1e-12), np.float32)


def read_mined(path: Path) -> dict[int, list[int]]:
    """Read the negatives that mining wrote: number of an image -> numbers of texts, both in the dataset.

    Raises:
        StorageError: the file is missing or damaged.
    """
    try:
        rows = [line.value or {} for line in iter_jsonl(path)] if path.stat().st_size else []
        return {int(row["image"]): [int(text) for text in row["texts"]] for row in rows}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is missing or damaged ({type(error).__name__})", fix="Mine again.") from None
