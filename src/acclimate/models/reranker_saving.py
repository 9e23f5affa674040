"""A trained reranker on disk: an adapter in PEFT's format, or a whole model; both load in sentence-transformers.

What sentence-transformers' CrossEncoder needs is written as plain JSON: its modules, and for a yes/no reranker the
chat template with the roles `query` and `document`. Its scores are the sigmoid of ours unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from acclimate.core.lora import lora_layers
from acclimate.core.merging import merge_into
from acclimate.files import storage_errors, write_json
from acclimate.formats import peft
from acclimate.formats.facts import ADAPTER_FILE
from acclimate.formats.reranker_folder import FOLDER_KIND
from acclimate.formats.reranker_view import chat_template, write_view
from acclimate.formats.transformers_io import quiet_transformers
from acclimate.models.reranker import Reranker
from acclimate.models.reranker_kinds import YesNo


def save_reranker_adapter(
    folder: Path, reranker: Reranker, rank: int, alpha: float, metrics: Mapping[str, Any]
) -> None:
    """Write the LoRA matrices of a trained reranker, and beside a cross-encoder's the head, as PEFT does.

    Args:
        folder: exists; an artifact in the making.
        reranker: carries LoRA.
        rank: r.
        alpha: the update is B A alpha / rank.
        metrics: what training measured.
    """
    modules = {}
    for name, layer in lora_layers(reranker.model).items():
        A_KrI, B_KOr = layer.weights()
        modules[name] = (A_KrI[0], B_KOr[0])
    head = reranker.kind.head(reranker.model)
    peft.write(folder, modules, reranker.source.id, rank, alpha, task=reranker.kind.task, head=head)
    _write_beside(folder, reranker, metrics)


def save_reranker(
    folder: Path, reranker: Reranker, metrics: Mapping[str, Any], base: Mapping[str, str] | None = None
) -> None:
    """Write a whole reranker in float32, LoRA folded into its weights.

    Args:
        folder: exists; an artifact in the making.
        reranker: trained in float32.
        metrics: what training measured.
        base: id and sha256 of the weights that it was made from; those that the reranker was loaded from if None.
    """
    merge_into(reranker.model)
    model: Any = reranker.model
    model.config._attn_implementation = None  # ours is not for other readers
    with storage_errors(folder), quiet_transformers():
        model.to("cpu", torch.float32).save_pretrained(str(folder))
    _write_beside(folder, reranker, metrics, base)


def _write_beside(
    folder: Path, reranker: Reranker, metrics: Mapping[str, Any], base: Mapping[str, str] | None = None
) -> None:
    """Tokenizer, our facts, sentence-transformers' view."""
    with storage_errors(folder), quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(str(reranker.source.folder))
        tokenizer.model_max_length = reranker.max_tokens
        if isinstance(reranker.kind, YesNo):
            tokenizer.padding_side = "left"
            tokenizer.chat_template = chat_template(reranker.kind.instruction)
        tokenizer.save_pretrained(str(folder))
    facts = {
        "kind": FOLDER_KIND,
        "base": dict(base or reranker.source.base),
        "instruction": reranker.kind.instruction,
        "max_tokens": reranker.max_tokens,
        "metrics": dict(metrics),
    }
    write_json(folder / ADAPTER_FILE, facts)
    kind = reranker.kind
    write_view(folder, (kind.yes, kind.no) if isinstance(kind, YesNo) else None)
