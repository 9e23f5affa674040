"""Tiny random models with real tokenizers, as folders that any reader of transformers' format loads.

`tiny_bert(folder)` and its siblings write a plain transformers folder; `as_sentence_transformer(folder, ...)` adds
what makes it a sentence-transformers folder. The same seed gives the same weights.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WORDS = """list files in a folder show disk usage find large sort lines count words copy remove directory print
the of to and is for with name all that not on by from as process memory user time run text data"""
CHINESE = "水稻病虫害防治方法土壤肥料灌溉种植小麦玉米温度地球绕太阳公转"
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
QWEN_ADDED = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
"""Qwen3's added tokens in the order of their ids, from 151643 on; the second row is not marked as special."""
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
OLD_FLAGS = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken", "max": "max_tokens"}
NEW_MODES = {"mean": "mean", "cls": "cls", "last": "lasttoken", "max": "max"}


def wordpiece_tokenizer(
    special: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    first: str = "[CLS]",
    last: str = "[SEP]",
    unknown: str = "[UNK]",
) -> Tokenizer:
    """A WordPiece tokenizer over words, letters and some Chinese; the special tokens have the first ids, in order."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*special, *WORDS.split(), *letters, *(f"##{letter}" for letter in letters), *dict.fromkeys(CHINESE)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
    )
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def qwen_tokenizer(bpe: Path | None = None, merges: int | None = None) -> Tokenizer:
    """Qwen3-Embedding's tokenizer: byte-level BPE, its 26 added tokens, <|endoftext|> appended to every text.

    The model's own tokenizer.json has these parts: NFC, the split by its regular expression, and as post-processor a
    sequence of ByteLevel and the template that appends the end token (it came after the first release).

    Args:
        bpe: a folder with Qwen's vocab.json and merges.txt; without it the vocabulary is the 256 bytes.
        merges: how many of the merges, which all have their own ids, are kept; all by default.
    """
    if bpe is None:
        vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        tokenizer = Tokenizer(models.BPE(vocabulary, []))
    else:
        vocabulary, pairs = models.BPE.read_file(str(bpe / "vocab.json"), str(bpe / "merges.txt"))
        if merges is not None:
            vocabulary = {token: index for token, index in vocabulary.items() if index < 256 + merges}
        tokenizer = Tokenizer(models.BPE(vocabulary, pairs[:merges]))
    tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(QWEN_SPECIAL))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in QWEN_ADDED])
    end = tokenizer.token_to_id("<|endoftext|>")
    template = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    plain = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.Sequence([plain, template])
    return tokenizer


def tiny_bert(folder: Path, *, seed: int = 0, max_tokens: int = 64, **settings: Any) -> Path:
    """A BertModel folder; `settings` override its config (dropouts are 0.1, as in real ones)."""
    tokenizer = wordpiece_tokenizer()
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=max_tokens, **SIZES | settings)
    return _write(folder, BertModel, config, _wrap(tokenizer, max_tokens), seed)


def tiny_e5(folder: Path, texts: Sequence[str], *, seed: int = 0, max_tokens: int = 64) -> Path:
    """A BertModel folder with a Unigram tokenizer, as multilingual-e5-small has it, made of some texts."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=max_tokens, pad_token_id=1, **SIZES
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=max_tokens,
    )
    return _write(folder, BertModel, config, wrapped, seed)


def tiny_reranker(folder: Path, *, seed: int = 0, num_labels: int = 1, max_tokens: int = 64, **settings: Any) -> Path:
    """A BertForSequenceClassification folder; `settings` override its config."""
    tokenizer = wordpiece_tokenizer()
    own = SIZES | {"vocab_size": tokenizer.get_vocab_size(), "num_labels": num_labels}
    config = BertConfig(max_position_embeddings=max_tokens, **own | settings)
    return _write(folder, BertForSequenceClassification, config, _wrap(tokenizer, max_tokens), seed)


def tiny_classifier(folder: Path, model_type: str, *, seed: int = 0, max_tokens: int = 64) -> Path:
    """A sequence-classification folder of any architecture, with one label."""
    offset = 2 if model_type == "xlm-roberta" else 0
    sizes = SIZES | {"vocab_size": 512, "max_position_embeddings": max_tokens + offset, "num_labels": 1}
    config = AutoConfig.for_model(model_type, pad_token_id=0, **sizes)
    model = AutoModelForSequenceClassification
    return _write(folder, model, config, _wrap(wordpiece_tokenizer(), max_tokens), seed)


def tiny_xlm_roberta(folder: Path, *, seed: int = 0, max_tokens: int = 64) -> Path:
    """An XLMRobertaModel folder: positions begin at padding_idx + 1 = 2."""
    tokenizer = wordpiece_tokenizer(("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "<s>", "</s>", "<unk>")
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=max_tokens + 2,
        type_vocab_size=1,
        pad_token_id=1,
        **SIZES,
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=max_tokens,
        model_input_names=["input_ids", "attention_mask"],
    )
    return _write(folder, XLMRobertaModel, config, wrapped, seed)


def tiny_qwen3(
    folder: Path,
    *,
    seed: int = 0,
    bpe: Path | None = None,
    merges: int | None = None,
    max_tokens: int = 128,
    **settings: Any,
) -> Path:
    """A Qwen3Model folder: causal, grouped-query attention, <|endoftext|> at the end of every text."""
    tokenizer = qwen_tokenizer(bpe, merges)
    sizes = SIZES | {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": max_tokens}
    config = Qwen3Config(vocab_size=tokenizer.get_vocab_size(), **sizes | settings)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=max_tokens,
        model_input_names=["input_ids", "attention_mask"],
    )
    _write(folder, Qwen3Model, config, wrapped, seed)
    own = json.loads((folder / "tokenizer_config.json").read_text())
    _dump(folder / "tokenizer_config.json", own | {"tokenizer_class": "Qwen2Tokenizer"})  # the hub's name of it
    return folder


def tiny_qwen3_reranker(
    folder: Path,
    bpe: Path | None = None,
    *,
    merges: int | None = 10_000,
    seed: int = 0,
    max_tokens: int = 192,
    tied: bool = True,
) -> Path:
    """A Qwen3ForCausalLM folder; with Qwen's BPE, yes and no are tokens, without it they are bytes.

    All merges make every reader take seconds longer, so by default it has the first ones, yes and no among them.
    """
    tiny_qwen3(folder, bpe=bpe, merges=merges, max_tokens=max_tokens)
    config = Qwen3Config.from_pretrained(folder, tie_word_embeddings=tied)
    return _write(folder, Qwen3ForCausalLM, config, AutoTokenizer.from_pretrained(folder), seed)


def tiny_model(folder: Path, model_type: str, *, seed: int = 0, max_tokens: int = 64, **settings: Any) -> Path:
    """A folder of any architecture of transformers, with the WordPiece tokenizer (its padding id is 0)."""
    tokenizer = wordpiece_tokenizer()
    sizes = SIZES | {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": max_tokens + 2,
        "pad_token_id": 0,
    }
    config = AutoConfig.for_model(model_type, **sizes | settings)
    names = ["input_ids", "attention_mask"]
    return _write(folder, AutoModel, config, _wrap(tokenizer, max_tokens, names), seed)


def as_sentence_transformer(
    folder: Path,
    pooling: str = "mean",
    *,
    normalise: bool = True,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    max_seq_length: int | None = None,
    do_lower_case: bool = False,
    new_keys: bool = False,
) -> Path:
    """Add modules.json, the pooling's config (old or new key names) and the prompts to a transformers folder."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": index, "name": str(index), "path": paths[index], "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    dim = json.loads((folder / "config.json").read_text())["hidden_size"]
    flags = {f"pooling_mode_{flag}": mode == pooling for mode, flag in OLD_FLAGS.items()}
    old, new = {"word_embedding_dimension": dim, **flags}, {"embedding_dimension": dim}
    _dump(folder / "modules.json", modules)
    _dump(folder / "1_Pooling" / "config.json", {**new, "pooling_mode": NEW_MODES[pooling]} if new_keys else old)
    _dump(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": do_lower_case})
    settings = {"prompts": prompts or {}, "default_prompt_name": default_prompt_name, "similarity_fn_name": "cosine"}
    _dump(folder / "config_sentence_transformers.json", settings)
    if normalise:
        (folder / "2_Normalize").mkdir(exist_ok=True)
    return folder


def _wrap(tokenizer: Tokenizer, max_tokens: int, names: list[str] | None = None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_tokens,
        model_input_names=names or ["input_ids", "token_type_ids", "attention_mask"],
    )


def _write(folder: Path, kind: Any, config: Any, tokenizer: PreTrainedTokenizerFast, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
        for parameter in model.parameters():  # larger than at initialisation, so that attention matters
            torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _dump(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
