"""How far a condition lies from what a hypernetwork was trained on, in the training tasks' own unit.

The unit is the distance (1 - cosine) that training conditions usually have from the nearest one of another kind: the
median. A condition at 1 is as new as a training task was to the others; one far above it is of another world (another
language, another sort of text), and what is generated for it is a guess. Descriptions are compared as the network reads
them, whitened: in the base's own space the wording counts for more than what is said, and what was trained on lies in
another wording two to five units away.

Shapes: N training conditions, D vector size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from acclimate.core.pooling import unit
from acclimate.files import storage_errors
from acclimate.models.hypernetwork.condition import ConditionVectors, Part
from acclimate.models.hypernetwork.condition_net import Whitening

KNOWN_FILE = "known.safetensors"
FAR = 1.8
"""Beyond so many units a condition is far from all training tasks. Nine in ten descriptions of trained definitions in
new words are below it, most sentences about something else above."""
Rows = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Unit vectors [N, D] of one part of training conditions, and of which kind each is [N]."""


def summaries(vectors: ConditionVectors) -> dict[Part, NDArray[np.float32]]:
    """One unit vector [D] for each part of a condition: its description, the mean of its queries, of its texts."""
    rows: dict[Part, NDArray[np.float32] | None] = {
        "description": None if vectors.description_D is None else vectors.description_D[None],
        "pairs": vectors.query_PD,
        "texts": vectors.text_SD,
    }
    return {part: _unit(row_ND.mean(0)) for part, row_ND in rows.items() if row_ND is not None and len(row_ND)}


@dataclass(frozen=True, eq=False)
class KnownConditions:
    """What a hypernetwork was trained on, by the vectors of its conditions."""

    parts: Mapping[Part, Rows]

    def distances(self, vectors: ConditionVectors, described: Whitening | None = None) -> dict[Part, float]:
        """Part of a condition -> its distance from the nearest training condition, in their own unit.

        A part is left out where the training had none of it, or none of another kind to take a unit from.

        Args:
            vectors: of the condition.
            described: how the network whitens descriptions; they are compared as they are if not given.
        """
        found: dict[Part, float] = {}
        for part, vector_D in summaries(vectors).items():
            if part in self.parts and (size := self.unit(part, described)):
                rows_ND = self._rows(part, described)
                if part == "description" and described is not None:
                    vector_D = _whitened(vector_D[None], described)[0]
                found[part] = float(1 - (rows_ND @ vector_D).max()) / size
        return found

    def _rows(self, part: Part, described: Whitening | None) -> NDArray[np.float32]:
        rows_ND = self.parts[part][0]
        return rows_ND if described is None or part != "description" else _whitened(rows_ND, described)

    def unit(self, part: Part, described: Whitening | None = None) -> float:
        """The median distance of a training condition from the nearest one of another kind; 0 where there is none."""
        rows_ND, kind_N = self._rows(part, described), self.parts[part][1]
        likeness_NN = np.where(kind_N[:, None] == kind_N[None], -np.inf, rows_ND @ rows_ND.T)
        nearest_N = likeness_NN.max(1)
        return float(np.median(1 - nearest_N)) if np.isfinite(nearest_N).all() else 0.0

    def save(self, folder: Path) -> None:
        """Write it into an existing folder, the vectors in float16.

        Raises:
            StorageError: it cannot be written.
        """
        tensors = {}
        for part, (rows_ND, kind_N) in self.parts.items():
            tensors[f"{part}.rows"] = rows_ND.astype(np.float16)
            tensors[f"{part}.kinds"] = kind_N.astype(np.int32)
        with storage_errors(folder):
            save_file(tensors, folder / KNOWN_FILE)

    @staticmethod
    def load(folder: Path) -> KnownConditions:
        """Read it; empty where the folder has none."""
        if not (folder / KNOWN_FILE).is_file():
            return KnownConditions({})
        tensors = load_file(folder / KNOWN_FILE)
        parts: tuple[Part, ...] = ("description", "pairs", "texts")
        return KnownConditions(
            {
                part: (tensors[f"{part}.rows"].astype(np.float32), tensors[f"{part}.kinds"].astype(np.int64))
                for part in parts
                if f"{part}.rows" in tensors
            }
        )


def _whitened(rows_ND: NDArray[np.float32], described: Whitening) -> NDArray[np.float32]:
    with torch.no_grad():
        rows: NDArray[np.float32] = unit(described(torch.from_numpy(rows_ND))).numpy()
    return rows


def _unit(vector_D: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector_D / max(float(np.linalg.norm(vector_D)), 1e-12)
