"""Whole models on disk: what `merge` and `train --full` write, plain sentence-transformers folders in float32."""

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
from acclimate.files import storage_errors
from acclimate.formats import sentence_transformers
from acclimate.formats.facts import write_facts
from acclimate.formats.sources import ModelSource
from acclimate.formats.transformers_io import model_errors, quiet_transformers
from acclimate.text_use import TextUse
from acclimate.types import Role, Sides

Modules = Mapping[str, tuple[Tensor, Tensor]]
"""Module path -> (A [r, d_in], B [d_out, r]), alpha / rank folded into B."""


def save_folded(
    folder: Path,
    source: ModelSource,
    use: TextUse,
    sides: Sides,
    *,
    modules: Modules | None = None,
    updates: Mapping[str, Tensor] | None = None,
) -> None:
    """Write base + adapter as one folder that needs neither acclimate nor PEFT.

    With `sides = "query"` it holds two transformers behind a `Router`: the changed one and the base.

    Args:
        folder: exists; an artifact in the making.
        source: the base, checked.
        use: how texts become vectors.
        sides: whose weights are changed.
        modules: the adapter's matrices.
        updates: module -> [d_out, d_in], added to the weights; instead of `modules`.

    Raises:
        ModelError: the base is quantised, or the adapter does not fit it.
    """
    model = _float32(source)
    queries = folder
    if sides == "both":
        sentence_transformers.write_pipeline(folder, source, use)
    else:
        routes: dict[Role, tuple[str, str]] = {
            "query": ("query_0_Transformer", sentence_transformers.TRANSFORMER),
            "document": ("document_0_Transformer", sentence_transformers.TRANSFORMER),
        }
        sentence_transformers.write_router(folder, source, use, routes)
        _save_transformer(folder / routes["document"][0], model, source, use)
        queries = folder / routes["query"][0]
    if modules is not None:
        lora.attach_weights(model, modules)
        merge_into(model)
    for name, update_OI in (updates or {}).items():
        model.get_parameter(f"{name}.weight").data += update_OI
    _save_transformer(queries, model, source, use)
    write_facts(folder, source.identity, use, normalise=source.files.normalise, sides=sides)


def save_weights(
    folder: Path,
    tensors: Mapping[str, Tensor],
    source: ModelSource,
    use: TextUse,
    base: Mapping[str, str] | None,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights of a whole model.

    The parts of `source` that are not among them (BERT's pooler) are written as they were, so that no reader warns.

    Args:
        folder: exists; an artifact in the making.
        tensors: name -> weight, as `loading.load_base` names them.
        source: whose architecture, settings and tokenizer they share.
        use: how texts become vectors.
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
    sentence_transformers.write_pipeline(folder, source, dataclasses.replace(use, dim=source.use.dim))
    _save_transformer(folder, model, source, use)
    if base is not None:
        write_facts(folder, base, use, normalise=source.files.normalise, sides="both", metrics=metrics)


def save_tokenizer(folder: Path, source: ModelSource) -> None:
    """Write the base's own tokenizer, as sentence-transformers expects it: an encoder's may carry settings of ours."""
    with storage_errors(folder), quiet_transformers():
        AutoTokenizer.from_pretrained(str(source.files.transformer)).save_pretrained(str(folder))


def _float32(source: ModelSource) -> nn.Module:
    """The whole base, its unused parts too, unquantised."""
    transformer = source.files.transformer
    with quiet_transformers(), model_errors(transformer):
        model: nn.Module = AutoModel.from_pretrained(str(transformer), dtype=torch.float32, use_safetensors=True)
    return model.eval()


def _save_transformer(folder: Path, model: Any, source: ModelSource, use: TextUse) -> None:
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        with quiet_transformers():
            model.save_pretrained(str(folder))
    save_tokenizer(folder, source)
    sentence_transformers.write_transformer_settings(folder, use)
