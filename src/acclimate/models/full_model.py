"""Whole models on disk: what `merge` and `train --full` write, plain sentence-transformers folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from acclimate.core import lora
from acclimate.core.merging import merge_into
from acclimate.errors import ModelError
from acclimate.files import storage_errors, write_json
from acclimate.formats import sentence_transformers
from acclimate.formats.facts import ADAPTER_FILE
from acclimate.formats.sentence_transformers import View
from acclimate.formats.sources import ModelSource
from acclimate.formats.transformers_io import model_errors, quiet_transformers
from acclimate.models.adapter_files import Adapter
from acclimate.models.encoder import Encoder
from acclimate.types import Role, Sides


def save_folded(
    folder: Path, adapter: Adapter, source: ModelSource, updates: Mapping[str, Tensor] | None = None
) -> None:
    """Write base + adapter as one float32 sentence-transformers folder that needs neither acclimate nor PEFT.

    With `sides = "query"` it holds two transformers behind a `Router`: the changed one and the base.

    Args:
        folder: exists; an artifact in the making.
        adapter: B with alpha / rank folded in.
        source: its base, checked.
        updates: module -> [d_out, d_in]: added to the weights instead of the adapter's matrices.

    Raises:
        ModelError: the base is quantised, or the adapter does not fit it.
    """
    view = view_of(adapter, source)
    model = _float32(source)
    queries = folder
    if adapter.sides == "both":
        sentence_transformers.write_pipeline(folder, view)
    else:
        routes: dict[Role, tuple[str, str]] = {
            "query": ("query_0_Transformer", sentence_transformers.TRANSFORMER),
            "document": ("document_0_Transformer", sentence_transformers.TRANSFORMER),
        }
        sentence_transformers.write_router(folder, view, routes)
        _save_transformer(folder / routes["document"][0], model, source, view)
        queries = folder / routes["query"][0]
    _fold(model, adapter, updates)
    _save_transformer(queries, model, source, view)
    _write_facts(folder, {"id": source.id, "sha256": source.sha256}, view, source.normalise, adapter.sides)


def save_full(
    folder: Path,
    encoder: Encoder,
    metrics: dict[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a fully trained encoder as a float32 sentence-transformers folder, with `acclimate.json` beside it.

    Args:
        folder: exists; an artifact in the making.
        encoder: its `model` holds the trained weights.
        metrics: what training measured.
        weights: the model's state, where the encoder holds a part of it only; its own if not given.
    """
    source = encoder.source
    weights = encoder.model.state_dict() if weights is None else weights
    base = {"id": source.id, "sha256": source.sha256}
    save_weights(folder, weights, source, view_of(encoder, source), base, metrics)


def save_weights(
    folder: Path,
    tensors: Mapping[str, Tensor],
    source: ModelSource,
    view: View,
    base: Mapping[str, str] | None,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write weights as a float32 sentence-transformers folder.

    The parts of `source` that are not among them (BERT's pooler) are written as they were, so that no reader warns.

    Args:
        folder: exists; an artifact in the making.
        tensors: name -> weight, as `loading.load_base` names them.
        source: whose architecture, settings and tokenizer they share.
        view: how texts become vectors.
        base: id and sha256 of what they were trained from; without it there is no `acclimate.json`.
        metrics: for `acclimate.json`.

    Raises:
        ModelError: the source has no weight of such a name.
    """
    model = _float32(source)
    whole = {name: value.detach().to("cpu", torch.float32) for name, value in tensors.items()}
    unknown = model.load_state_dict(whole, strict=False).unexpected_keys
    if unknown:
        raise ModelError(f"the trained model has weights that its base {source.id} has not: {', '.join(unknown[:3])}")
    # The vectors on disk are as long as the source's: a smaller `dim` is in acclimate.json, so the rest stays of use.
    sentence_transformers.write_pipeline(folder, dataclasses.replace(view, dim=source.kept_dim))
    _save_transformer(folder, model, source, view)
    if base is not None:
        _write_facts(folder, base, view, source.normalise, "both", metrics)


def _write_facts(
    folder: Path,
    base: Mapping[str, str],
    view: View,
    normalise: bool,
    sides: Sides,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    facts = {
        "base": dict(base),
        "prompts": view.prompts.to_json(),
        "pooling": view.pooling,
        "normalise": normalise,
        "dim": view.dim,
        "max_tokens": view.max_tokens,
        "sides": sides,
        "metrics": dict(metrics or {}),
    }
    write_json(folder / ADAPTER_FILE, facts)


def save_tokenizer(folder: Path, source: ModelSource) -> None:
    """The base's own tokenizer, as sentence-transformers expects it: an encoder's may carry settings of ours."""
    with storage_errors(folder), quiet_transformers():
        AutoTokenizer.from_pretrained(str(source.transformer)).save_pretrained(str(folder))


def view_of(model: Encoder | Adapter | ModelSource, source: ModelSource) -> View:
    """What sentence-transformers must know to give this model's vectors.

    Args:
        model: says how texts become vectors.
        source: its base.
    """
    return View(
        pooling=model.pooling,
        hidden=source.hidden,
        heads=source.heads,
        whole=source.dim,
        dim=model.dim,
        max_tokens=model.max_tokens,
        lowercase=source.lowercase,
        prompts=model.prompts,
    )


def _float32(source: ModelSource) -> nn.Module:
    """The whole base, its unused parts too, unquantised."""
    with quiet_transformers(), model_errors(source.transformer):
        model: nn.Module = AutoModel.from_pretrained(str(source.transformer), dtype=torch.float32, use_safetensors=True)
    return model.eval()


def _fold(model: nn.Module, adapter: Adapter, updates: Mapping[str, Tensor] | None) -> None:
    if updates is None:
        lora.attach_weights(model, adapter.modules)
        merge_into(model)
        return
    for name, update_OI in updates.items():
        model.get_parameter(f"{name}.weight").data += update_OI


def _save_transformer(folder: Path, model: Any, source: ModelSource, view: View) -> None:
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        with quiet_transformers():
            model.save_pretrained(str(folder))
    save_tokenizer(folder, source)
    sentence_transformers.write_transformer_settings(folder, view)
