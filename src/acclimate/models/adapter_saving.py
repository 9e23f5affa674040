"""An adapter written with all that readers of other tools need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from acclimate.formats import peft, sentence_transformers
from acclimate.formats.facts import write_facts
from acclimate.formats.full_model import save_tokenizer
from acclimate.formats.hub_cache import share_packaged
from acclimate.formats.query_domain import write_query_domain
from acclimate.formats.sources import ModelSource
from acclimate.models.adapter import Adapter
from acclimate.types import Role


def save_adapter(folder: Path, adapter: Adapter, source: ModelSource) -> None:
    """Write the adapter into an existing folder: PEFT's files, ours, the tokenizer, the view of sentence-transformers.

    All of it in sentence-transformers' own classes, which find the base by PEFT. An adapter for queries only is the one
    side of a Router; the other is the base: an adapter that adds nothing, because that is what names a base there.

    Args:
        folder: exists; an artifact in the making.
        adapter: B with alpha / rank folded in.
        source: its base.
    """
    base = {"id": adapter.base_id, "sha256": adapter.base_sha256}
    peft.write(folder, adapter.modules, adapter.base_id, adapter.rank, adapter.alpha)
    write_facts(folder, base, adapter.use, normalise=adapter.normalise, sides=adapter.sides, metrics=adapter.metrics)
    if adapter.domain is not None:
        write_query_domain(folder, adapter.domain)
    save_tokenizer(folder, source)
    if adapter.sides == "both":
        sentence_transformers.write_pipeline(folder, source, adapter.use)
    else:
        name, (A_rI, B_Or) = next(iter(adapter.modules.items()))
        sides: dict[Role, Mapping[str, tuple[Tensor, Tensor]]] = {
            "query": adapter.modules,
            "document": nothing(name, A_rI.shape[1], B_Or.shape[0]),
        }
        routes: dict[Role, tuple[str, str]] = {
            role: (f"{role}_0_SentenceTransformer", sentence_transformers.WHOLE_MODEL) for role in sides
        }
        sentence_transformers.write_router(folder, source, adapter.use, routes)
        for role, modules in sides.items():
            side = folder / routes[role][0]
            side.mkdir()
            sentence_transformers.write_route(side, adapter.use)
            save_tokenizer(side, source)
            peft.write(side, modules, adapter.base_id, adapter.rank, adapter.alpha)
    share_packaged(source)


def nothing(name: str, d_in: int, d_out: int) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter of rank 1 on one layer whose update is 0: what names a base to readers of adapters."""
    return {name: (torch.zeros(1, d_in), torch.zeros(d_out, 1))}
