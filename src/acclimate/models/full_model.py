"""Whole models on disk: what `merge` and `train --full` write, plain sentence-transformers folders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

from acclimate.core import lora
from acclimate.core.merging import merge_into
from acclimate.errors import ModelError
from acclimate.files import storage_errors, write_json
from acclimate.models import st_folder
from acclimate.models.adapter_files import ADAPTER_FILE, Adapter
from acclimate.models.encoder import Encoder
from acclimate.models.loading import model_errors, quiet_transformers
from acclimate.models.sources import ModelSource
from acclimate.models.st_folder import View


def save_merged(folder: Path, adapter: Adapter, source: ModelSource) -> None:
    """Write base + adapter as one float32 sentence-transformers folder that needs neither acclimate nor PEFT.

    With `sides = "query"` it holds two transformers behind a `Router`: the merged one and the base.

    Args:
        folder: exists; an artifact in the making.
        adapter: B with alpha / rank folded in.
        source: its base, checked.

    Raises:
        ModelError: the base is quantised, or the adapter does not fit it.
    """
    view = View(
        pooling=adapter.pooling,
        hidden=source.dim,
        dim=adapter.dim,
        max_tokens=adapter.max_tokens,
        lowercase=source.lowercase,
        prompts=adapter.prompts,
    )
    model = _float32(source)
    if adapter.sides == "both":
        st_folder.write_pipeline(folder, view)
        _save_transformer(folder, _merge(model, adapter), source, view)
        return
    routes = {role: (f"{role}_0_Transformer", st_folder.TRANSFORMER) for role in ("query", "document")}
    st_folder.write_router(folder, view, routes)  # type: ignore[arg-type]
    _save_transformer(folder / routes["document"][0], model, source, view)
    _save_transformer(folder / routes["query"][0], _merge(model, adapter), source, view)


def save_full(folder: Path, encoder: Encoder, metrics: dict[str, Any] | None = None) -> None:
    """Write a fully trained encoder as a float32 sentence-transformers folder, with `acclimate.json` beside it.

    The base's parts that are not trained (BERT's pooler) are written as they were, so that no reader warns.

    Args:
        folder: exists; an artifact in the making.
        encoder: its `model` holds the trained weights.
        metrics: what training measured.
    """
    source = encoder.source
    model = _float32(source)
    trained = {name: value.detach().to("cpu", torch.float32) for name, value in encoder.model.state_dict().items()}
    unknown = model.load_state_dict(trained, strict=False).unexpected_keys
    if unknown:
        raise ModelError(f"the trained model has weights that its base {source.id} has not: {', '.join(unknown[:3])}")
    # Whole vectors on disk: a smaller `dim` is in acclimate.json, and the base's other dimensions stay of use.
    view = dataclasses.replace(view_of(encoder), dim=source.dim)
    st_folder.write_pipeline(folder, view)
    _save_transformer(folder, model, source, view)
    facts = {
        "base": {"id": source.id, "sha256": source.sha256},
        "prompts": encoder.prompts.to_json(),
        "pooling": encoder.pooling,
        "normalise": source.normalise,
        "dim": encoder.dim,
        "max_tokens": encoder.max_tokens,
        "sides": "both",
        "metrics": metrics or {},
    }
    write_json(folder / ADAPTER_FILE, facts)


def save_tokenizer(folder: Path, source: ModelSource) -> None:
    """The base's own tokenizer, as sentence-transformers expects it: an encoder's may carry settings of ours."""
    with storage_errors(folder), quiet_transformers():
        AutoTokenizer.from_pretrained(str(source.transformer)).save_pretrained(str(folder))


def view_of(encoder: Encoder) -> View:
    """What sentence-transformers must know to give this encoder's vectors."""
    return View(
        pooling=encoder.pooling,
        hidden=encoder.source.dim,
        dim=encoder.dim,
        max_tokens=encoder.max_tokens,
        lowercase=encoder.source.lowercase,
        prompts=encoder.prompts,
    )


def _float32(source: ModelSource) -> nn.Module:
    """The whole base, its unused parts too, unquantised."""
    with quiet_transformers(), model_errors(source.transformer):
        model: nn.Module = AutoModel.from_pretrained(str(source.transformer), dtype=torch.float32, use_safetensors=True)
    return model.eval()


def _merge(model: nn.Module, adapter: Adapter) -> nn.Module:
    lora.attach_weights(model, adapter.modules)
    merge_into(model)
    return model


def _save_transformer(folder: Path, model: Any, source: ModelSource, view: View) -> None:
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        with quiet_transformers():
            model.save_pretrained(str(folder))
    save_tokenizer(folder, source)
    st_folder.write_transformer_settings(folder, view)
