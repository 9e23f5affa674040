"""Reading a model's folder as it lies on disk: sentence-transformers' layout, or plain transformers. JSON only.

sentence-transformers: `modules.json` names the modules (Transformer, or a Router with one for queries and one for
documents; Pooling; maybe Dense layers, the last of which may only keep leading dimensions; maybe Normalize); the
pooling's config has had two forms, one flag per mode (to 5) and one `pooling_mode` (from 6); prompts are in
`config_sentence_transformers.json`, the limit on tokens in `sentence_bert_config.json` or the tokenizer's config.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from acclimate.errors import ModelError
from acclimate.files import read_json
from acclimate.prompts import Prompts
from acclimate.types import ROLES, Pooling, Role

POOLING_OF_MODE: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
SUPPORTED_MODULES = ("Transformer", "Router", "Pooling", "Dense", "Normalize")
LIMIT_FILES = (
    "sentence_bert_config.json",
    *(f"sentence_{kind}_config.json" for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta")),
)
CAUSAL_MODEL_TYPES = frozenset(
    {"qwen2", "qwen3", "llama", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt2"}
    | {"gpt_neox", "gpt_neo", "gptj", "opt", "bloom", "falcon", "olmo", "olmo2", "smollm3", "granite", "starcoder2"}
)
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"})
"""Architectures whose position of the first token is padding_idx + 1."""


@dataclass(frozen=True)
class TransformerFolder:
    """What a folder says about its model; `pooling` and `prompts` are None where it says nothing."""

    folder: Path
    transformer: Path
    """Where config, weights and tokenizer lie; of two transformers the documents'."""
    query_transformer: Path | None
    """The queries' own, where a Router has two."""
    config: dict[str, Any]
    pooling: Pooling | None
    normalise: bool
    prompts: Prompts | None
    max_tokens: int
    position_limit: int
    hidden: int
    """Width of the hidden states."""
    heads: tuple[Path, ...]
    """Folders of Dense layers behind the pooling."""
    dim: int
    """Dimensions of a whole vector: those of the hidden states, or what the heads make of them."""
    kept_dim: int
    """Leading dimensions kept before normalisation; all, if nothing cuts them."""
    lowercase: bool

    @property
    def model_type(self) -> str:
        """transformers' name of the architecture."""
        return str(self.config.get("model_type", "unknown"))

    @property
    def architecture(self) -> Literal["bidirectional", "causal"]:
        """Whether a token sees the later ones."""
        return "causal" if is_causal(self.config) else "bidirectional"


def read_folder(folder: Path) -> TransformerFolder:
    """Read a model's folder.

    Raises:
        ModelError: no model, a damaged file, not an embedding model, or a module that Encoder does not have.
    """
    modules = _read_list(folder / "modules.json")
    if modules is None:
        return _describe(folder, {"document": folder, "query": folder}, None, normalise=False)
    paths: dict[str, Path] = {}
    dense: list[Path] = []
    for module in modules:
        library, _, kind = str(module.get("type", "")).partition(".")
        if library != "sentence_transformers":
            raise ModelError(
                f"{folder / 'modules.json'} names {module.get('type')!r}: the model needs code of its own, "
                "which is not run here",
                fix="Look for a version of the model that transformers knows by itself.",
            )
        kind = kind.rsplit(".", 1)[-1]
        if kind not in SUPPORTED_MODULES or (kind in paths and kind != "Dense"):
            raise ModelError(
                f"{folder / 'modules.json'}: a module of type {module.get('type')!r} is not supported here",
                possible="Transformer or Router, Pooling, Dense, Normalize; one each, but of Dense",
            )
        paths[kind] = folder / str(module.get("path", ""))
        if kind == "Dense":
            dense.append(paths[kind])
    if ("Transformer" in paths) == ("Router" in paths) or "Pooling" not in paths:
        raise ModelError(f"{folder / 'modules.json'} names no Transformer with a Pooling", fix="Is it a text encoder?")
    if list(paths) != [kind for kind in SUPPORTED_MODULES if kind in paths]:
        raise ModelError(
            f"{folder / 'modules.json'} has the order {', '.join(paths)}", possible=", ".join(SUPPORTED_MODULES)
        )
    pooling = _read_pooling(paths["Pooling"] / "config.json")
    routes = _read_router(paths["Router"]) if "Router" in paths else dict.fromkeys(ROLES, paths["Transformer"])
    found = _describe(folder, routes, pooling, normalise="Normalize" in paths)
    return _with_dense(found, dense)


def is_causal(config: dict[str, Any]) -> bool:
    """Whether the model of this config.json attends to earlier tokens only."""
    if config.get("is_causal") is False or config.get("use_bidirectional_attention"):
        return False
    return config.get("model_type") in CAUSAL_MODEL_TYPES or bool(config.get("is_decoder"))


def position_limit(config: dict[str, Any]) -> int:
    """The most tokens that the position embeddings allow."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(positions, int) or positions < 1:
        return 2**31 - 1
    first = int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") in OFFSET_POSITIONS else 0
    return positions - first


def head_sizes(folder: Path) -> tuple[int, int]:
    """Dimensions that a Dense folder takes and gives.

    Raises:
        StorageError: it has no config.json, or a damaged one.
        ModelError: its config does not say.
    """
    config = read_json(folder / "config.json")
    sizes = config.get("in_features"), config.get("out_features")
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ModelError(f"{folder / 'config.json'}: in_features and out_features are {sizes[0]!r} and {sizes[1]!r}")
    return int(config["in_features"]), int(config["out_features"])


def _describe(
    folder: Path, routes: Mapping[Role, Path], pooling: Pooling | None, *, normalise: bool
) -> TransformerFolder:
    transformer = routes["document"]
    config = read_model_config(transformer, folder)
    architectures = [str(name) for name in config.get("architectures") or []]
    if pooling is None and any(name.endswith("ForSequenceClassification") for name in architectures):
        raise ModelError(f"{folder} is a reranker or classifier ({architectures[0]}), not an embedding model")
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{folder} is an encoder-decoder ({config.get('model_type')}), which is not supported")
    dim = next((config[key] for key in ("hidden_size", "dim", "d_model", "n_embd") if key in config), None)
    if not isinstance(dim, int):
        raise ModelError(f"{transformer / 'config.json'} has no hidden_size", fix="Is it a text model?")
    limits: dict[str, Any] = next(filter(None, (_read_object(transformer / name) for name in LIMIT_FILES)), {})
    tokenizer = _read_object(transformer / "tokenizer_config.json") or {}
    limit = position_limit(config)
    own_limit = limits.get("max_seq_length") or tokenizer.get("model_max_length") or limit
    settings = _read_object(folder / "config_sentence_transformers.json") or {}
    named = settings.get("prompts")
    return TransformerFolder(
        folder=folder,
        transformer=transformer,
        query_transformer=routes["query"] if routes["query"] != transformer else None,
        config=config,
        pooling=pooling,
        normalise=normalise,
        prompts=Prompts.from_sentence_transformers(named) if named else None,
        max_tokens=int(min(own_limit, limit)),
        position_limit=limit,
        hidden=dim,
        heads=(),
        dim=dim,
        kept_dim=dim,
        lowercase=bool(limits.get("do_lower_case")),
    )


def read_model_config(transformer: Path, folder: Path) -> dict[str, Any]:
    """A model's config.json.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    config = _read_object(transformer / "config.json")
    if config is None:
        hint = " (it holds an adapter)" if (folder / "adapter_config.json").exists() else ""
        raise ModelError(f"{folder} is not a model's folder{hint}: no config.json in it")
    return config


def _read_router(folder: Path) -> dict[Role, Path]:
    """Where each side's transformer lies."""
    config = _read_object(folder / "router_config.json") or {}
    routes: dict[Role, Path] = {}
    for role in ROLES:
        modules = config.get("structure", {}).get(role) or []
        kinds = [str(config.get("types", {}).get(name, "")).rsplit(".", 1)[-1] for name in modules]
        if kinds != ["Transformer"]:
            raise ModelError(
                f"{folder / 'router_config.json'}: the route {role!r} is {' + '.join(kinds) or 'missing'}",
                possible="one Transformer for queries and one for documents",
            )
        routes[role] = folder / str(modules[0])
    return routes


def _with_dense(found: TransformerFolder, dense: Sequence[Path]) -> TransformerFolder:
    """Dense modules are heads, but for one at the end that only keeps leading dimensions."""
    kept = _kept_dimensions(dense[-1]) if dense else None
    heads = tuple(dense[:-1] if kept else dense)
    dim = found.hidden
    for folder in dense:
        takes, gives = head_sizes(folder)
        if takes != dim:
            raise ModelError(f"{folder} takes {takes} dimensions, what comes before it gives {dim}")
        dim = gives if folder in heads else dim
    return replace(found, heads=heads, dim=dim, kept_dim=kept or dim)


def _kept_dimensions(folder: Path) -> int | None:
    """How many leading dimensions a Dense module keeps, if that is all that it does."""
    config = _read_object(folder / "config.json") or {}
    kept, path = config.get("out_features"), folder / "model.safetensors"
    plain = config.get("bias") is False and str(config.get("activation_function")).endswith(".Identity")
    if plain and isinstance(kept, int) and path.is_file():
        # A damaged file, another tensor, or a format that numpy does not have: not the matrix that is looked for.
        with contextlib.suppress(SafetensorError, TypeError), safe_open(path, "np") as tensors:
            if np.array_equal(tensors.get_tensor("linear.weight"), np.eye(kept, config.get("in_features"))):
                return kept
    return None


def _read_pooling(path: Path) -> Pooling:
    config = _read_object(path)
    if config is None:
        raise ModelError(f"{path} is missing", fix="Fetch the model again.")
    if config.get("include_prompt") is False:
        raise ModelError(f"{path}: include_prompt = false (pooling without the prompt) is not supported")
    mode = config.get("pooling_mode") or [name for flag, name in POOLING_FLAGS.items() if config.get(flag)] or "mean"
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(modes) != 1 or modes[0] not in POOLING_OF_MODE:
        raise ModelError(
            f"{path}: pooling by {' + '.join(map(str, modes))} is not supported", possible="mean, cls, last"
        )
    return POOLING_OF_MODE[modes[0]]


def _read_object(path: Path) -> dict[str, Any] | None:
    value = _read(path)
    if value is not None and not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object", fix="Fetch the model again.")
    return value


def _read_list(path: Path) -> list[dict[str, Any]] | None:
    value = _read(path)
    if value is not None and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
        raise ModelError(f"{path} holds no list of modules", fix="Fetch the model again.")
    return value


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} cannot be read ({error})", fix="Fetch the model again.") from None
