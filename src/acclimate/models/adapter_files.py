"""An adapter: low-rank matrices, the base they were made for, and how its texts become vectors; on disk and in memory.

Shapes: r rank, d_in and d_out features. On disk: PEFT's format (`adapter_config.json`, `adapter_model.safetensors`,
explicit module paths as targets) and `acclimate.json` for what PEFT has no place for. In memory B has alpha / rank
folded in; on disk it has not, as PEFT expects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from acclimate.errors import ModelError
from acclimate.files import write_json
from acclimate.formats import peft
from acclimate.formats.facts import ADAPTER_FILE, read_facts
from acclimate.formats.sources import ModelSource, resolve_model
from acclimate.prompts import Prompts
from acclimate.types import Pooling, Sides


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
    prompts: Prompts
    pooling: Pooling
    normalise: bool
    """Whether the base's own files normalise its vectors (Encoder always does)."""
    dim: int
    """Leading dimensions kept, then renormalised (Matryoshka)."""
    max_tokens: int
    sides: Sides = "both"
    """query: documents are encoded by the base alone."""
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def check_base(self, source: ModelSource) -> None:
        """Raise a `ModelError` unless `source` holds the weights that the adapter was made for."""
        if self.base_sha256 != source.sha256:
            raise ModelError(
                f"the adapter was made for base {self.base_id} (sha256 {self.base_sha256[:12]}), "
                f"found {source.id} (sha256 {source.sha256[:12]})",
                fix="Name a folder or id that holds the original weights as the base.",
            )


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
        prompts=Prompts.from_json(facts["prompts"]),
        pooling=facts["pooling"],
        normalise=facts["normalise"],
        dim=facts["dim"],
        max_tokens=facts["max_tokens"],
        sides=facts["sides"],
        metrics=facts["metrics"],
    )


def write_adapter(folder: Path, adapter: Adapter) -> None:
    """PEFT's two files and `acclimate.json`, into an existing folder."""
    peft.write(folder, adapter.modules, adapter.base_id, adapter.rank, adapter.alpha)
    write_json(
        folder / ADAPTER_FILE,
        {
            "base": {"id": adapter.base_id, "sha256": adapter.base_sha256},
            "prompts": adapter.prompts.to_json(),
            "pooling": adapter.pooling,
            "normalise": adapter.normalise,
            "dim": adapter.dim,
            "max_tokens": adapter.max_tokens,
            "sides": adapter.sides,
            "metrics": dict(adapter.metrics),
        },
    )


def _facts_of_base(folder: Path, base: str) -> dict[str, Any]:
    if not base:
        raise ModelError(f"{folder} does not name its base model", fix="Give the base model's id or folder.")
    source = resolve_model(base)
    return {
        "base": {"id": source.id, "sha256": source.sha256},
        "prompts": source.prompts.to_json(),
        "pooling": source.pooling,
        "normalise": source.normalise,
        "dim": source.kept_dim,
        "max_tokens": source.max_tokens,
        "sides": "both",
        "metrics": {},
    }
