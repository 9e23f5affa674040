"""Adapters and encoders together: an encoder from a run, an adapter saved with what readers of other tools need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from acclimate.core.lora import lora_layers
from acclimate.errors import ModelError, UsageError
from acclimate.files import hash_folder
from acclimate.formats import peft, sentence_transformers
from acclimate.formats.facts import ADAPTER_FILE, adapter_folder, full_folder, read_facts
from acclimate.formats.hub_cache import share_packaged
from acclimate.formats.sources import ModelSource, resolve_model
from acclimate.models.adapter_files import Adapter, load_adapter, write_adapter
from acclimate.models.encoder import Encoder
from acclimate.models.full_model import save_full, save_tokenizer, view_of
from acclimate.types import Pooling, Role

__all__ = [
    "Adapter",
    "adapter_folder",
    "go_on_from",
    "load_adapter",
    "load_encoder",
    "model_hash",
    "own_base",
    "save_adapter",
    "save_full",
]


def go_on_from(encoder: Encoder, name: str) -> None:
    """Copy a finished adapter's matrices into the LoRA attached to `encoder`, for training to go on from them.

    Args:
        encoder: with LoRA of the same rank on the same layers.
        name: a run or an adapter folder.

    Raises:
        ModelError: no adapter there, or one of another base.
        UsageError: its rank or its layers are not those that are attached.
    """
    folder = adapter_folder(name)
    if folder is None:
        raise ModelError(f"start_adapter: {name} holds no adapter", fix="Give a run, or its adapter folder.")
    adapter = load_adapter(folder)
    adapter.check_base(encoder.source)
    layers = lora_layers(encoder.model)
    found = {name: matrices[0].shape[0] for name, matrices in adapter.modules.items()}
    wanted = {name: layer.A.shape[1] for name, layer in layers.items()}
    if found != wanted:
        raise UsageError(
            f"start_adapter: {folder} has {len(found)} layers of rank {adapter.rank}, the training {len(wanted)} of "
            f"rank {max(wanted.values())}",
            fix="Give the --rank and --targets that it was trained with.",
        )
    with torch.no_grad():
        for path, (A_rI, B_Or) in adapter.modules.items():
            layers[path].A.copy_(A_rI[None])
            layers[path].B.copy_(B_Or[None] / layers[path].scaling)


def save_adapter(folder: Path, adapter: Adapter, source: ModelSource) -> None:
    """Write the adapter into an existing folder: PEFT's files, ours, the tokenizer, the view of sentence-transformers.

    All of it in sentence-transformers' own classes, which find the base by PEFT. An adapter for queries only is the one
    side of a Router; the other is the base: an adapter that adds nothing, because that is what names a base there.

    Args:
        folder: exists; an artifact in the making.
        adapter: B with alpha / rank folded in.
        source: its base.
    """
    write_adapter(folder, adapter)
    save_tokenizer(folder, source)
    view = view_of(adapter, source)
    if adapter.sides == "both":
        sentence_transformers.write_pipeline(folder, view)
    else:
        sides: dict[Role, Mapping[str, tuple[Tensor, Tensor]]] = {
            "query": adapter.modules,
            "document": _nothing(adapter.modules),
        }
        routes: dict[Role, tuple[str, str]] = {
            role: (f"{role}_0_SentenceTransformer", sentence_transformers.WHOLE_MODEL) for role in sides
        }
        sentence_transformers.write_router(folder, view, routes)
        for role, modules in sides.items():
            side = folder / routes[role][0]
            side.mkdir()
            sentence_transformers.write_route(side, view)
            save_tokenizer(side, source)
            peft.write(side, modules, adapter.base_id, adapter.rank, adapter.alpha)
    share_packaged(source)


def _nothing(modules: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter of rank 1 on one layer whose update is 0."""
    name, (A_rI, B_Or) = next(iter(modules.items()))
    return {name: (torch.zeros_like(A_rI[:1]), torch.zeros_like(B_Or[:, :1]))}


def own_base(name: str | Path, model: str, pooling: Pooling | None) -> str | None:
    """`model`, where it is what the adapter at `name` was made for; else None: the adapter's own id says where it is.

    A model that is a folder has an id that leads nowhere.
    """
    folder = adapter_folder(name)
    if folder is None or not (folder / ADAPTER_FILE).exists():
        return None
    return model if read_facts(folder)["base"]["sha256"] == resolve_model(model, pooling=pooling).sha256 else None


def load_encoder(
    name: str | Path,
    *,
    base: str | None = None,
    max_tokens: int | None = None,
    dim: int | None = None,
    query_prompt: str | None = None,
    instruction: str | None = None,
    document_prompt: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Encoder:
    """An encoder from a run, an adapter folder, or any model's name, with the adapter attached.

    Args:
        name: `RUN`, `RUN/adapter`, another adapter folder, or a model (folder or hub id).
        base: the adapter's base, where its id does not lead to it (a folder that has moved).
        max_tokens: overrides what the adapter or model says; so do all the others, see `Encoder.load`.
        dim: see there.
        query_prompt: see there.
        instruction: see there.
        document_prompt: see there.
        device: see there.
        dtype: see there.

    Raises:
        ModelError: the base is not the one that the adapter was made for, or cannot be found.
    """
    folder = adapter_folder(name)
    if folder is not None:
        adapter = load_adapter(folder, base)
        adapter = dataclasses.replace(
            adapter,
            prompts=adapter.prompts.with_defaults(query_prompt, document_prompt, instruction),
            dim=dim or adapter.dim,
            max_tokens=max_tokens or adapter.max_tokens,
        )
        encoder = Encoder.load(
            base or adapter.base_id,
            pooling=adapter.pooling,
            max_tokens=adapter.max_tokens,
            dim=adapter.dim,
            device=device,
            dtype=dtype,
        )
        return encoder.with_adapter(adapter)
    full = full_folder(name)
    if full is not None:
        facts = read_facts(full)
        dim, max_tokens, name = dim or facts["dim"], max_tokens or facts["max_tokens"], full
    return Encoder.load(
        str(name),
        query_prompt=query_prompt,
        instruction=instruction,
        document_prompt=document_prompt,
        max_tokens=max_tokens,
        dim=dim,
        device=device,
        dtype=dtype,
    )


def model_hash(name: str) -> str:
    """sha256 of what a name that `load_encoder` takes leads to: a run's adapter or model, or a model's weights.

    Raises:
        ModelError: it leads to nothing.
    """
    trained = adapter_folder(name) or full_folder(name)
    return resolve_model(name).sha256 if trained is None else hash_folder(trained)
