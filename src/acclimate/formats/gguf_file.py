"""GGUF, the format of llama.cpp: an embedding model of the BERT family or Qwen3 in one file, tokenizer and pooling too.

llama.cpp has tokenizers of its own, so only those that are known to agree are written: WordPiece in lower case (BERT),
Unigram (XLM-R, multilingual E5), and Qwen's byte-level BPE. It neither cuts long texts nor knows prompts.

Source: llama.cpp's docs/gguf and the keys of its gguf package.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer

from acclimate.errors import ModelError
from acclimate.files import read_json, storage_errors
from acclimate.formats.folders import OFFSET_POSITIONS
from acclimate.formats.sources import ModelSource, weight_files
from acclimate.text_use import TextUse
from acclimate.types import Pooling

BERT_TYPES = ("bert", "roberta", "xlm-roberta", "camembert")
POSSIBLE = f"{', '.join(BERT_TYPES)}, qwen3"
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What llama.cpp calls the pre-tokenizer "qwen2"."""
NORMAL, UNKNOWN, CONTROL, USER, UNUSED = 1, 2, 3, 4, 5
"""llama.cpp's types of tokens."""
POOLINGS: dict[Pooling, str] = {"mean": "MEAN", "cls": "CLS", "last": "LAST"}
KEPT_WHOLE = ("position_embd.weight", "token_types.weight")
"""Matrices that llama.cpp adds to float32 ones."""
SPACE = "\u2581"
"""What stands for the space before a word."""


@dataclass(frozen=True)
class _Vocabulary:
    """A tokenizer in llama.cpp's terms; all lists are as long as the embedding table."""

    model: str
    pre: str
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float] | None
    merges: Sequence[str] | None
    before: Sequence[int]
    """Ids that the tokenizer puts before a text."""
    after: Sequence[int]
    charsmap: bytes | None
    """SentencePiece's table of replacements, of Unigram."""


def check_gguf(source: ModelSource, use: TextUse) -> None:
    """Refuse what llama.cpp could not compute alike, before anything is written.

    Raises:
        ModelError: another architecture, activation, position embedding or tokenizer; Dense layers.
    """
    config, kind = source.files.config, source.files.model_type
    if kind not in (*BERT_TYPES, "qwen3"):
        raise ModelError(f"--format gguf of the architecture {kind}", possible=POSSIBLE)
    if source.files.heads:
        raise ModelError(f"{source.id} has Dense layers, for which llama.cpp has no place", possible="onnx, openvino")
    activation = "silu" if kind == "qwen3" else "gelu"
    if (found := config.get("hidden_act", activation)) != activation:
        raise ModelError(f"{source.id} computes {found}, and llama.cpp {activation} for {kind}")
    positions = config.get("position_embedding_type", "absolute")
    rope = (config.get("rope_parameters") or config.get("rope_scaling") or {}).get("rope_type", "default")
    if positions != "absolute" or rope != "default" or config.get("use_sliding_window"):
        raise ModelError(f"{source.id}: positions are {positions}, {rope}", possible="absolute, default, no window")
    tokenizer = read_json(source.files.transformer / "tokenizer.json")
    _check_tokenizer(tokenizer, kind, source.id, lowercase=use.lowercase)


def write_gguf(path: Path, transformer: Path, source: ModelSource, use: TextUse, *, half: bool) -> None:
    """Write a transformer with its tokenizer and pooling.

    Args:
        path: the file to write; its folder is made.
        transformer: where config, weights and tokenizer lie.
        source: the model that it is a part of; `check_gguf` has let it pass.
        use: pooling, and the limit on tokens, at which the table of positions ends.
        half: matrices in float16; vectors stay float32.

    Raises:
        StorageError: it cannot be written.
    """
    import gguf

    config, kind = source.files.config, source.files.model_type
    arch = gguf.MODEL_ARCH.QWEN3 if kind == "qwen3" else gguf.MODEL_ARCH.BERT
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[arch])
        writer.add_name(source.id)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
        writer.add_context_length(use.max_tokens)
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_pooling_type(gguf.PoolingType[POOLINGS[use.pooling]])
        (_add_qwen if kind == "qwen3" else _add_bert)(writer, config)
        names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
        for name, value in _tensors(transformer, source, use, names, prefix="model." if kind == "qwen3" else ""):
            if half and value.ndim == 2 and name not in KEPT_WHOLE:
                value = value.astype(np.float16)
            if name == "token_embd.weight":
                _add_vocabulary(writer, _vocabulary(transformer, len(value), kind))
            writer.add_tensor(name, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add_bert(writer: Any, config: Mapping[str, Any]) -> None:
    writer.add_layer_norm_eps(config.get("layer_norm_eps", 1e-12))
    writer.add_causal_attention(False)
    writer.add_token_type_count(config.get("type_vocab_size", 1))


def _add_qwen(writer: Any, config: Mapping[str, Any]) -> None:
    rope = config.get("rope_parameters") or {}
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0))
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))


def _tensors(
    transformer: Path, source: ModelSource, use: TextUse, names: Any, *, prefix: str
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every weight by llama.cpp's name for it; what no vector depends on (a pooler) has none."""
    kind, padding = source.files.model_type, int(source.files.config.get("pad_token_id") or 0)
    first = padding + 1 if kind in OFFSET_POSITIONS else 0
    for file in weight_files(transformer):
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118  (not a dict)
                if "pooler." in key or key.endswith("position_ids"):
                    continue
                name = names.get_name(f"{prefix}{key.removeprefix('model.')}", try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise ModelError(f"{source.id}: llama.cpp has no place for the weight {key}")
                value: NDArray[np.float32] = stored.get_tensor(key).float().numpy()
                if name == "position_embd.weight":
                    value = value[first : first + use.max_tokens]
                yield name, np.ascontiguousarray(value)


def _check_tokenizer(tokenizer: Mapping[str, Any], kind: str, where: str, *, lowercase: bool) -> None:
    """Refuse a tokenizer that llama.cpp does not have."""
    model, normaliser = tokenizer["model"]["type"], tokenizer.get("normalizer") or {}
    wrong = ""
    if kind == "qwen3":
        splits = [
            part.get("pattern", {}).get("Regex")
            for part in (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers", [])
        ]
        if model != "BPE" or QWEN_SPLIT not in splits:
            wrong = f"{model}, split in another way than Qwen's"
    elif model == "WordPiece":
        if not normaliser.get("lowercase") or normaliser.get("strip_accents") is False:
            wrong = "WordPiece that keeps upper case or accents"
    elif model != "Unigram":
        wrong = str(model)
    elif lowercase:
        wrong = "Unigram behind texts in lower case"
    if wrong:
        raise ModelError(
            f"{where}: llama.cpp would not make the same tokens (the tokenizer is {wrong})",
            possible="WordPiece in lower case, Unigram, Qwen's byte-level BPE",
            fix="Export it for ONNX or OpenVINO, which take token ids.",
        )


def _vocabulary(transformer: Path, rows: int, kind: str) -> _Vocabulary:
    """The tokenizer, filled up with unused tokens to the rows of the embedding table."""
    path = transformer / "tokenizer.json"
    said, tokenizer = read_json(path), Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model, added = said["model"], {item["id"]: item for item in said["added_tokens"]}
    pieces = model["vocab"]
    texts = {place: piece for place, (piece, _) in enumerate(pieces)} if isinstance(pieces, list) else {}
    texts = texts or {place: piece for piece, place in pieces.items()}
    texts |= {place: item["content"] for place, item in added.items()}
    unknown = model.get("unk_id") if isinstance(pieces, list) else pieces.get(model.get("unk_token"))
    tokens, types = [], []
    for place in range(rows):
        token, item = texts.get(place, f"[PAD{place}]"), added.get(place)
        type_ = NORMAL if place in texts else UNUSED
        if place == unknown:
            type_ = UNKNOWN
        elif item is not None:
            type_ = CONTROL if item["special"] else USER
        if model["type"] == "WordPiece" and type_ == NORMAL:
            token = token[2:] if token.startswith("##") else SPACE + token
        tokens.append(token)
        types.append(type_)
    scores = None
    if isinstance(pieces, list):
        scores = [float(score) for _, score in pieces[:rows]] + [-10_000.0] * (rows - len(pieces))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges", [])]
    name = {"WordPiece": "bert", "Unigram": "t5", "BPE": "gpt2"}[model["type"]]
    before, after = _around(tokenizer)
    pre = "qwen2" if kind == "qwen3" else "default"
    return _Vocabulary(name, pre, tokens, types, scores, merges or None, before, after, _charsmap(said))


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that it puts before and after every text."""
    plain, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    start = next(at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]


def _charsmap(tokenizer: Mapping[str, Any]) -> bytes | None:
    normaliser = tokenizer.get("normalizer") or {}
    for part in (normaliser, *normaliser.get("normalizers", [])):
        if part.get("precompiled_charsmap"):
            return base64.b64decode(part["precompiled_charsmap"])
    return None


def _add_vocabulary(writer: Any, found: _Vocabulary) -> None:
    writer.add_tokenizer_model(found.model)
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(list(found.tokens))
    writer.add_token_types(list(found.types))
    if found.scores is not None:
        writer.add_token_scores(list(found.scores))
        writer.add_add_space_prefix(True)
        writer.add_remove_extra_whitespaces(True)
        if found.charsmap is not None:
            writer.add_precompiled_charsmap(found.charsmap)
    if found.merges is not None:
        writer.add_token_merges(list(found.merges))
    writer.add_add_bos_token(bool(found.before))
    writer.add_add_eos_token(bool(found.after))
    if found.before or found.after:
        # Qwen has none, and its own files name the end token here: node-llama-cpp appends that only where there is one.
        writer.add_bos_token_id(found.before[0] if found.before else found.after[-1])
    if found.after:
        writer.add_eos_token_id(found.after[-1])
        writer.add_sep_token_id(found.after[-1])
    if UNKNOWN in found.types:
        writer.add_unk_token_id(found.types.index(UNKNOWN))
