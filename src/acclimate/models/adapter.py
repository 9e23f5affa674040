"""Adapter: low-rank matrices, the base they were made for, and how its texts become vectors; read from its folder.

Shapes: r rank, d_in and d_out features. On disk: PEFT's format (`adapter_config.json`, `adapter_model.safetensors`,
explicit module paths as targets) and `acclimate.json` for what PEFT has no place for. In memory B has alpha / rank
folded in; on disk it has not, as PEFT expects.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.core.lora import lora_layers
from acclimate.errors import ModelError, UsageError
from acclimate.files import hash_text
from acclimate.formats import peft
from acclimate.formats.facts import ADAPTER_FILE, check_base, read_facts
from acclimate.formats.query_domain import QueryDomain, read_query_domain
from acclimate.formats.sources import ModelSource, resolve_model
from acclimate.text_use import TextUse
from acclimate.types import Sides


@dataclass(frozen=True, eq=False)
class Adapter:
    """What training made, and what it needs to be used."""

    base_id: str
    """Canonical id of the base model; never a path of the cache it was found in."""
    base_sha256: str
    """Hash of the base's weights."""
    rank: int
    alpha: float
    modules: Mapping[str, tuple[Tensor, Tensor]]
    """Module path -> (A [r, d_in], B [d_out, r]), alpha / rank folded into B."""
    use: TextUse
    """How texts become vectors: it was trained so."""
    normalise: bool
    """Whether the base's own files normalise its vectors (Encoder always does)."""
    sides: Sides = "both"
    """query: documents are encoded by the base alone."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    domain: QueryDomain | None = None
    """Where its queries lie among the base's: a router needs it. None of an adapter that we did not train."""

    @cached_property
    def sha256(self) -> str:
        """Hash of what it does to vectors: base, sides and matrices. Computed once; `use` is hashed beside it."""
        digest = hashlib.sha256(f"{self.base_sha256} {self.sides}".encode())
        for name, pair in sorted(self.modules.items()):
            digest.update(json.dumps([name, *(list(matrix.shape) for matrix in pair)]).encode())
            for matrix in pair:
                digest.update(matrix.detach().to("cpu", torch.float32).contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """sha256 over all that its vectors depend on beside the base: matrices and use of texts."""
        return hash_text(self.sha256, json.dumps(self.use.to_json(), sort_keys=True))

    def check_base(self, source: ModelSource) -> None:
        """Raise a `ModelError` unless `source` holds the weights that the adapter was made for."""
        check_base({"id": self.base_id, "sha256": self.base_sha256}, source.identity, "the adapter")


def load_adapter(folder: Path, base: str | None = None) -> Adapter:
    """Read an adapter folder, ours or any that PEFT wrote.

    Args:
        folder: holds `adapter_config.json`. Without our `acclimate.json`, pooling, prompts and limits are the base
            model's own, and the base that is found is taken for the right one.
        base: for such a folder, where to find the base if its id does not lead to it.

    Raises:
        ModelError: no adapter there, or one that low-rank updates of linear layers cannot express, named by the field.
        StorageError: a file is missing or damaged.
    """
    own = read_facts(folder) if (folder / ADAPTER_FILE).exists() else None
    weights = peft.read(folder)
    facts = own or _facts_of_base(folder, base or weights.base_id)
    return Adapter(
        base_id=facts["base"]["id"],
        base_sha256=facts["base"]["sha256"],
        rank=weights.rank,
        alpha=weights.alpha,
        modules=weights.modules,
        use=facts["use"],
        normalise=facts["normalise"],
        sides=facts["sides"],
        metrics=facts["metrics"],
        domain=read_query_domain(folder),
    )


def continue_from(model: torch.nn.Module, adapter: Adapter) -> None:
    """Copy a finished adapter's matrices into attached LoRA, for training to go on from them.

    Args:
        model: carries LoRA of the same rank on the same layers.
        adapter: made for the same base.

    Raises:
        UsageError: its rank or its layers are not those that are attached.
    """
    layers = lora_layers(model)
    ranks = {name: matrices[0].shape[0] for name, matrices in adapter.modules.items()}
    attached = {name: layer.A.shape[1] for name, layer in layers.items()}
    if ranks != attached:
        raise UsageError(
            f"start_adapter has {len(ranks)} layers of rank {adapter.rank}, the training {len(attached)} of "
            f"rank {max(attached.values())}",
            fix="Give the --rank and --targets that it was trained with.",
        )
    with torch.no_grad():
        for path, (A_rI, B_Or) in adapter.modules.items():
            layers[path].A.copy_(A_rI[None])
            layers[path].B.copy_(B_Or[None] / layers[path].scaling)


def _facts_of_base(folder: Path, base: str) -> dict[str, Any]:
    if not base:
        raise ModelError(f"{folder} does not name its base model", fix="Give the base model's id or folder.")
    source = resolve_model(base)
    return {
        "base": source.identity,
        "use": source.use,
        "normalise": source.files.normalise,
        "sides": "both",
        "metrics": {},
    }
