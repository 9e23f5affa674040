"""A trained reranker on disk: an adapter in PEFT's format, or a whole model; both load in sentence-transformers.

What sentence-transformers' CrossEncoder needs is written as plain JSON: its modules, and for a yes/no reranker the
chat template with the roles `query` and `document`. Its scores are the sigmoid of ours unless told otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from acclimate.core.lora import lora_layers
from acclimate.core.merging import merge_into
from acclimate.files import storage_errors, write_json, write_text
from acclimate.models import peft_format
from acclimate.models.adapter_files import ADAPTER_FILE
from acclimate.models.loading import quiet_transformers
from acclimate.models.reranker import Reranker
from acclimate.models.reranker_kinds import YES_NO_BODY, YES_NO_PREFIX, YES_NO_SUFFIX, YesNo
from acclimate.models.reranker_source import FOLDER_KIND

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"


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
    peft_format.write(folder, modules, reranker.source.id, rank, alpha, task=reranker.kind.task, head=head)
    _write_beside(folder, reranker, metrics)


def save_reranker(folder: Path, reranker: Reranker, metrics: Mapping[str, Any]) -> None:
    """Write a whole reranker in float32, LoRA folded into its weights.

    Args:
        folder: exists; an artifact in the making.
        reranker: trained in float32.
        metrics: what training measured.
    """
    merge_into(reranker.model)
    model: Any = reranker.model
    model.config._attn_implementation = None  # ours is not for other readers
    with storage_errors(folder), quiet_transformers():
        model.to("cpu", torch.float32).save_pretrained(str(folder))
    _write_beside(folder, reranker, metrics)


def _write_beside(folder: Path, reranker: Reranker, metrics: Mapping[str, Any]) -> None:
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
        "base": {"id": reranker.source.id, "sha256": reranker.source.sha256},
        "instruction": reranker.kind.instruction,
        "max_tokens": reranker.max_tokens,
        "metrics": dict(metrics),
    }
    write_json(folder / ADAPTER_FILE, facts)
    _write_view(folder, reranker.kind)


def chat_template(instruction: str) -> str:
    """A yes/no reranker's prompt in Jinja, over the roles `system` (the instruction), `query` and `document`."""

    def of(role: str) -> str:
        return f'{{{{ messages | selectattr("role", "eq", "{role}") | map(attribute="content") | first }}}}'

    default = json.dumps(instruction, ensure_ascii=False)
    told = of("system").replace(" }}", f" | default({default}) }}}}")
    body = YES_NO_BODY.format(instruction=told, query=of("query"), text=of("document"))
    return YES_NO_PREFIX + body + YES_NO_SUFFIX + "\n"  # Jinja drops one newline at the very end


def _write_view(folder: Path, kind: Any) -> None:
    outputs = {"text": {"method": "forward", "method_output_name": "logits"}}
    modules = [{"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}]
    if isinstance(kind, YesNo):
        modules.append({"idx": 1, "name": "1", "path": "1_LogitScore", "type": LOGIT_SCORE})
        (folder / "1_LogitScore").mkdir(exist_ok=True)
        tokens = {"true_token_id": kind.yes, "false_token_id": kind.no, "module_input_name": "causal_logits"}
        write_json(folder / "1_LogitScore" / "config.json", tokens)
        message = {"message": {**outputs["text"], "format": "flat"}}
        view = {"transformer_task": "text-generation", "module_output_name": "causal_logits"}
        view |= {"modality_config": outputs | message}  # type: ignore[dict-item]
    else:
        view = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
        view |= {"modality_config": outputs}  # type: ignore[dict-item]
    write_text(folder / "modules.json", json.dumps(modules, indent=2) + "\n")
    write_json(folder / "sentence_bert_config.json", view)
    settings = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid", "prompts": {}}
    write_json(folder / "config_sentence_transformers.json", settings)
