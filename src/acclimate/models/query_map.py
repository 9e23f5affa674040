"""QueryMap: a low-rank map on a model's query vectors. The model, its documents and their index stay as they are.

On disk: `query_map.safetensors` and `acclimate.json`, and beside them what sentence-transformers needs to load the
folder: a Router whose sides are the base, with a Dense layer behind the queries' one. PEFT has no place for it.

Shapes: N queries, r rank, D vector size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from acclimate.core.pooling import unit
from acclimate.errors import ModelError, StorageError
from acclimate.files import hash_text
from acclimate.formats.facts import check_base, read_facts
from acclimate.formats.sources import ModelSource
from acclimate.text_use import TextUse

MAP_FILE = "query_map.safetensors"
KIND = "query-map"
"""What `acclimate.json` says of the folder."""


@dataclass(frozen=True, eq=False)
class QueryMap:
    """v -> v + B A v, renormalised: a LoRA on an identity layer behind the pooling."""

    base_id: str
    """Canonical id of the base model."""
    base_sha256: str
    """Hash of the base's weights."""
    A_rD: Tensor
    B_Dr: Tensor
    use: TextUse
    """How the base's texts become vectors: it maps vectors of this use only."""
    normalise: bool
    """Whether the base's own files normalise its vectors."""
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, query_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map unit rows to unit rows."""
        mapped: NDArray[np.float32] = self.mapped(torch.from_numpy(query_ND)).numpy()
        return mapped

    def mapped(self, query_ND: Tensor) -> Tensor:
        """Map unit rows to unit rows, on their device."""
        A_rD, B_Dr = self.A_rD.to(query_ND.device), self.B_Dr.to(query_ND.device)
        return unit(query_ND + query_ND @ A_rD.T @ B_Dr.T)

    def as_linear(self) -> Tensor:
        """Return the whole map as one linear layer's weight [D, D], before renormalisation: I + B A, float32."""
        return torch.eye(self.use.dim) + self.B_Dr @ self.A_rD

    @cached_property
    def sha256(self) -> str:
        """Hash of what it does to vectors: base and matrices."""
        digest = hashlib.sha256(f"{KIND} {self.base_sha256}".encode())
        for matrix in (self.A_rD, self.B_Dr):
            digest.update(json.dumps(list(matrix.shape)).encode())
            digest.update(matrix.detach().to("cpu", torch.float32).contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """sha256 over all that its vectors depend on beside the base: matrices and use of texts."""
        return hash_text(self.sha256, json.dumps(self.use.to_json(), sort_keys=True))

    def check_base(self, source: ModelSource) -> None:
        """Raise a `ModelError` unless `source` holds the weights that the map was made for."""
        check_base({"id": self.base_id, "sha256": self.base_sha256}, source.identity, "the query-vector map")


def load_query_map(folder: Path) -> QueryMap:
    """Read what `save_query_map` wrote.

    Raises:
        ModelError: its parts do not fit together.
        StorageError: a file is missing or damaged.
    """
    facts, path = read_facts(folder), folder / MAP_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StorageError(f"{path} cannot be read ({reason})", fix="Generate it again.") from None
    use: TextUse = facts["use"]
    shapes = {name: tuple(tensor.shape) for name, tensor in sorted(tensors.items())}
    rank = shapes.get("A", (0,))[0]
    if not rank or shapes != {"A": (rank, use.dim), "B": (use.dim, rank)}:
        raise ModelError(f"{path} holds {shapes} for vectors of {use.dim} dimensions", fix="Generate it again.")
    return QueryMap(
        base_id=facts["base"]["id"],
        base_sha256=facts["base"]["sha256"],
        A_rD=tensors["A"].float(),
        B_Dr=tensors["B"].float(),
        use=use,
        normalise=facts["normalise"],
        metrics=facts["metrics"],
    )
