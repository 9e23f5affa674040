"""Tiny random models as sentence-transformers folders, and random adapters on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from acclimate.core.linears import linear_names
from acclimate.formats import sentence_transformers
from acclimate.formats.sources import resolve_model
from acclimate.models.adapter import Adapter
from acclimate.models.encoder import Encoder
from acclimate.prompts import Prompts
from acclimate.text_use import TextUse
from acclimate.types import Pooling, Sides

WORDS = ["find", ":", "wheat", "rice", "water", "soil", "field", "seed", "rain", "sun", "leaf", "grows", "in", "the"]
TEXTS = ["wheat grows", "rain in the field", "soil", "the sun", "seed leaf water rice wheat"]
PROMPTS = Prompts({"": "find : "}, {"": ""})
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[END]"]
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def write_model(folder: Path, family: str, *, seed: int = 0) -> Path:
    """A tiny model (`bert`: mean pooling, `qwen3`: last token) as a sentence-transformers folder."""
    torch.manual_seed(seed)
    vocabulary = [*SPECIAL, *WORDS]
    model: Any
    if family == "bert":
        model = BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=40, **SIZES))
    else:
        settings = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 40, "pad_token_id": 0}
        model = Qwen3Model(Qwen3Config(vocab_size=len(vocabulary), **SIZES, **settings))
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    _tokenizer(family, vocabulary).save_pretrained(folder)
    pooling: Pooling = "mean" if family == "bert" else "last"
    source = resolve_model(str(folder), pooling=pooling)
    use = TextUse(PROMPTS, pooling, 32, 20, lowercase=True)
    sentence_transformers.write_pipeline(folder, source, use)
    return folder


def random_adapter(
    encoder: Encoder, *, rank: int = 4, alpha: float = 8.0, sides: Sides = "both", dim: int = 32
) -> Adapter:
    """An adapter on all linear layers, strong enough to move every vector."""
    generator = torch.Generator().manual_seed(7)
    modules = {}
    for name in linear_names(encoder.model):
        linear: Any = encoder.model.get_submodule(name)
        A_rI = torch.randn(rank, linear.in_features, generator=generator) / 8
        modules[name] = (A_rI, torch.randn(linear.out_features, rank, generator=generator) / 8)
    source = encoder.source
    return Adapter(
        base_id=source.id,
        base_sha256=source.sha256,
        rank=rank,
        alpha=alpha,
        modules=modules,
        use=dataclasses.replace(encoder.use, dim=dim),
        normalise=source.files.normalise,
        sides=sides,
        metrics={"steps": 3},
    )


def _tokenizer(family: str, vocabulary: list[str]) -> PreTrainedTokenizerFast:
    ids = {word: index for index, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template, used = ("[CLS] $A [SEP]", ("[CLS]", "[SEP]")) if family == "bert" else ("$A [END]", ("[END]",))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, ids[token]) for token in used]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=20, **special)
