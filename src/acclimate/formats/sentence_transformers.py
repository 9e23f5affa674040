"""The sentence-transformers view of a folder: plain JSON files, written without importing sentence-transformers.

Class names and keys are the old ones (`sentence_transformers.models.*`, `word_embedding_dimension`), which every
release since 2.3 reads; `pooling_mode` is written beside the old switches for readers that know only that.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from acclimate.files import storage_errors, write_json, write_text
from acclimate.formats.sources import ModelSource
from acclimate.prompts import DEFAULT_TASK, Prompts
from acclimate.text_use import TextUse
from acclimate.types import Pooling, Role

MODULES_FILE = "modules.json"
TRANSFORMER = "sentence_transformers.models.Transformer"
WHOLE_MODEL = "sentence_transformers.SentenceTransformer"
POOLING_NAMES: dict[Pooling, str] = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
_OLD_SWITCHES: dict[str, str] = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def write_pipeline(folder: Path, source: ModelSource, use: TextUse) -> None:
    """Transformer (in the folder itself), pooling, normalisation."""
    _write_modules(folder, source, use, TRANSFORMER)
    write_transformer_settings(folder, use)


def write_router(folder: Path, source: ModelSource, use: TextUse, routes: Mapping[Role, tuple[str, str]]) -> None:
    """Another transformer for queries than for documents (`Router.for_query_document`), the rest in common.

    Args:
        folder: the model's folder.
        source: their base.
        use: shared by both sides.
        routes: role -> (subfolder, class).
    """
    _write_modules(folder, source, use, "sentence_transformers.models.Router")
    router = {
        "types": dict(routes.values()),
        "structure": {role: [subfolder] for role, (subfolder, _) in routes.items()},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    write_json(folder / "router_config.json", router)


def write_mapped_router(folder: Path, use: TextUse, sides: Mapping[Role, str], weight_DD: torch.Tensor) -> None:
    """One model for both sides, a linear layer behind the queries' one, and normalisation for both.

    Args:
        folder: the model's folder.
        use: shared by both sides.
        sides: role -> subfolder of the model as `write_unnormalised` writes it.
        weight_DD: of the linear layer.
    """
    mapped = "query_1_Dense"
    router = {
        "types": {**dict.fromkeys(sides.values(), WHOLE_MODEL), mapped: "sentence_transformers.models.Dense"},
        "structure": {role: [name, *([mapped] if role == "query" else [])] for role, name in sides.items()},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    write_json(folder / "router_config.json", router)
    with storage_errors(folder):
        _write_dense(folder / mapped, weight_DD)
    _write_normalised(folder, use, [("", "sentence_transformers.models.Router")])


def write_unnormalised(folder: Path, source: ModelSource, use: TextUse) -> None:
    """A whole model (`WHOLE_MODEL`) but for the normalisation, which follows what a Router puts behind it."""
    write_text(folder / MODULES_FILE, _module_rows(_write_stages(folder, source, use, TRANSFORMER)))
    write_transformer_settings(folder, use)


def write_route(folder: Path, use: TextUse) -> None:
    """The transformer alone, as a whole model (`WHOLE_MODEL`) that a Router takes for one of its sides.

    A side that is a `Transformer` would look for an adapter's base in the side's own subfolder *of the base*; a whole
    model is read by sentence-transformers as it reads any folder, so that PEFT finds the base by its id.
    """
    write_text(folder / MODULES_FILE, _module_rows([("", TRANSFORMER)]))
    write_transformer_settings(folder, use)


def write_transformer_settings(folder: Path, use: TextUse) -> None:
    """`sentence_bert_config.json` of the folder that holds the transformer."""
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": use.max_tokens, "do_lower_case": use.lowercase})


def prompt_names(prompts: Prompts) -> dict[str, str]:
    """Prompts by sentence-transformers' names: `query`, `document`, and `<task>.query`, `<task>.document`."""
    named = {"query": prompts.prompt("query"), "document": prompts.prompt("document")}
    roles: tuple[Role, ...] = ("query", "document")
    for role in roles:
        for task, text in (prompts.query if role == "query" else prompts.document).items():
            if task != DEFAULT_TASK:
                named[f"{task}.{role}"] = text
    return named


def pooling_settings(width: int, pooling: Pooling) -> dict[str, Any]:
    """`1_Pooling/config.json`, in old and new names."""
    mode = POOLING_NAMES[pooling]
    switches = {switch: name == mode for name, switch in _OLD_SWITCHES.items()}
    return {"word_embedding_dimension": width, "pooling_mode": mode, **switches, "include_prompt": True}


def leading_dimensions(whole: int, dim: int) -> torch.Tensor:
    """The weight [dim, whole] of a linear layer that keeps the leading dimensions.

    Matryoshka: slice, *then* normalise. sentence-transformers' own `truncate_dim` cuts after normalisation.
    """
    return torch.eye(dim, whole)


def _write_modules(folder: Path, source: ModelSource, use: TextUse, first: str) -> None:
    _write_normalised(folder, use, _write_stages(folder, source, use, first))


def _write_stages(folder: Path, source: ModelSource, use: TextUse, first: str) -> list[tuple[str, str]]:
    """Pooling and what the base has behind it; returns (path, class) of each module."""
    stages = [("", first), ("1_Pooling", "sentence_transformers.models.Pooling")]
    with storage_errors(folder):
        (folder / "1_Pooling").mkdir(exist_ok=True)
        write_json(folder / "1_Pooling" / "config.json", pooling_settings(source.files.hidden, use.pooling))
        for head in source.files.heads:
            stages.append((f"{len(stages)}_Dense", "sentence_transformers.models.Dense"))
            shutil.copytree(head, folder / stages[-1][0], dirs_exist_ok=True)
        whole = source.files.dim
        if use.dim < whole:
            stages.append((f"{len(stages)}_Dense", "sentence_transformers.models.Dense"))
            _write_truncation(folder / stages[-1][0], whole, use.dim)
    return stages


def _write_normalised(folder: Path, use: TextUse, stages: Sequence[tuple[str, str]]) -> None:
    """Normalisation as the last module, the list of modules, and the prompts."""
    normalise = f"{len(stages)}_Normalize"
    with storage_errors(folder):
        (folder / normalise).mkdir(exist_ok=True)
    write_text(folder / MODULES_FILE, _module_rows([*stages, (normalise, "sentence_transformers.models.Normalize")]))
    settings = {"prompts": prompt_names(use.prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", settings)


def _module_rows(stages: Sequence[tuple[str, str]]) -> str:
    """`modules.json`: (path, class) of each module, in order."""
    rows = [
        f'  {{"idx": {index}, "name": "{index}", "path": "{path}", "type": "{kind}"}}'
        for index, (path, kind) in enumerate(stages)
    ]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def _write_truncation(folder: Path, whole: int, dim: int) -> None:
    _write_dense(folder, leading_dimensions(whole, dim))


def _write_dense(folder: Path, weight: torch.Tensor) -> None:
    """A linear layer without bias or activation; its weight is [dimensions out, dimensions in]."""
    folder.mkdir(exist_ok=True)
    settings = {
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    write_json(folder / "config.json", settings)
    save_file({"linear.weight": weight}, folder / "model.safetensors")
