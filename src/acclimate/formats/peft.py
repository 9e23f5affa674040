"""PEFT's adapter files, read and written without PEFT (format of PEFT 0.21; older ones are read too).

Reading honours `r`, `lora_alpha`, `use_rslora` (scaling alpha / sqrt(r)), `rank_pattern` and `alpha_pattern`, and
refuses, by the field's name, whatever a low-rank update of linear layers cannot express. What PEFT may add later is
refused too as soon as it is switched on: only fields known to leave y = Wx + s B A x as it is are let through.

Shapes: r rank, d_in and d_out features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from acclimate.errors import ModelError, StorageError
from acclimate.files import read_json, storage_errors, write_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PICKLED_FILE = "adapter_model.bin"
_ROOT = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(?P<name>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_HONOURED = frozenset({"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"})
_WITHOUT_EFFECT = frozenset(
    {
        # Who made it, for what, and how it was trained.
        "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
        "lora_dropout", "runtime_config", "eva_config",
        # Which modules: the keys of the weights say it exactly.
        "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
        # Settings of methods that another field switches on.
        "megatron_core", "qalora_group_size",
    }
)  # fmt: skip
_PLAIN_INITS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to draw the first matrices that leave the base's weights alone; PiSSA, OLoRA, LoftQ and others change those."""


@dataclass(frozen=True, eq=False, slots=True)
class PeftWeights:
    """What the two files hold; B has the scaling folded in."""

    base_id: str
    rank: int
    alpha: float
    modules: dict[str, tuple[Tensor, Tensor]]
    head: dict[str, Tensor]
    """Parameter path -> weights of a head that was trained in whole (PEFT's `modules_to_save`)."""


def read(folder: Path, *, with_head: bool = False) -> PeftWeights:
    """Read `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        folder: holds both.
        with_head: let in a classification head beside the matrices, as rerankers have.

    Raises:
        ModelError: not a LoRA adapter, or a field or tensor that the primitive cannot express.
        StorageError: a file is missing or damaged.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is no adapter folder", fix="Give a run, or a folder with an adapter_config.json.")
    config = read_json(folder / CONFIG_FILE)
    where = folder / CONFIG_FILE
    _refuse_inexpressible(where, config, {"modules_to_save"} if with_head else set())
    tensors = _tensors(folder)
    head = {name: tensor for name, tensor in tensors.items() if with_head and not _KEY.fullmatch(name)}
    rank, alpha = _number(where, config, "r", 8), _number(where, config, "lora_alpha", 8)
    modules = {}
    for name, (A_rI, B_Or) in _pairs(
        folder / WEIGHTS_FILE, {name: tensors[name] for name in tensors.keys() - head.keys()}
    ).items():
        own_rank = A_rI.shape[0]
        said = _by_pattern(config.get("rank_pattern") or {}, name, rank)
        if own_rank != said:
            raise ModelError(
                f"{folder / WEIGHTS_FILE}: {name} has rank {own_rank}, and {CONFIG_FILE} says {said:g}",
                fix="Copy both files again, from one training.",
            )
        own_alpha = float(_by_pattern(config.get("alpha_pattern") or {}, name, alpha))
        scale = own_alpha / (math.sqrt(own_rank) if config.get("use_rslora") else own_rank)
        modules[name] = (A_rI, B_Or * scale)
    # One alpha / rank stands for the whole from here on; per-module scales are in B already.
    effective = alpha * math.sqrt(rank) if config.get("use_rslora") else alpha
    base_id = str(config.get("base_model_name_or_path") or "")
    return PeftWeights(base_id, int(rank), effective, modules, {name.removeprefix(_ROOT): head[name] for name in head})


def write(
    folder: Path,
    modules: Mapping[str, tuple[Tensor, Tensor]],
    base_id: str,
    rank: int,
    alpha: float,
    *,
    task: str = "FEATURE_EXTRACTION",
    head: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` into an existing folder.

    Args:
        folder: exists.
        modules: module path -> (A [r, d_in], B [d_out, r]), alpha / rank folded into B; on disk it is not.
        base_id: by which readers find the base.
        rank: r of most modules.
        alpha: the update is the stored B A alpha / rank.
        task: PEFT's name of what the model is for.
        head: parameter path -> weights that were trained in whole, for PEFT's `modules_to_save`.
    """
    tensors = {}
    with storage_errors(folder):
        for name, (A_rI, B_Or) in modules.items():
            tensors[key(name, "A")] = A_rI.detach().to("cpu", torch.float32).contiguous()
            tensors[key(name, "B")] = (B_Or.detach().to("cpu", torch.float32) / (alpha / rank)).contiguous()
        for name, weights in (head or {}).items():
            tensors[_ROOT + name] = weights.detach().to("cpu", torch.float32).contiguous()
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    ranks = {name: A.shape[0] for name, (A, _) in modules.items()}
    saved = sorted({name.partition(".")[0] for name in head or {}})
    write_json(
        folder / CONFIG_FILE,
        _config_of(base_id, ranks, rank, alpha) | {"task_type": task, "modules_to_save": saved or None},
    )


def _config_of(base_id: str, ranks: Mapping[str, int], rank: int, alpha: float) -> dict[str, Any]:
    """`adapter_config.json` for modules of the given ranks whose stored B times alpha / rank is the update.

    Targets are whole module paths, so that no reader has to guess what an ending means.
    """
    others = {name: own for name, own in ranks.items() if own != rank}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base_id,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(ranks),
        "rank_pattern": others,
        "alpha_pattern": {name: alpha * own / rank for name, own in others.items()},
    }


def key(name: str, side: str) -> str:
    """The tensor's name in the weights file."""
    return f"base_model.model.{name}.lora_{side}.weight"


def _refuse_inexpressible(where: Path, config: Mapping[str, Any], let_in: set[str]) -> None:
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{where}: peft_type is {config.get('peft_type')!r}", possible="'LORA'")
    if config.get("init_lora_weights", True) not in _PLAIN_INITS:
        raise ModelError(
            f"{where}: init_lora_weights is {config['init_lora_weights']!r}, which changes the base's own weights",
            fix="Let PEFT convert it to a plain LoRA (path_initial_model_for_weight_conversion) and load that.",
        )
    for name, value in config.items():
        harmless = name in _HONOURED | _WITHOUT_EFFECT | let_in or name == "init_lora_weights"
        if not harmless and value not in (None, False, "none", {}, []):
            raise ModelError(
                f"{where}: {name} is {value!r}; a low-rank update of linear layers cannot express that",
                fix=f"Train the adapter without {name}, or merge it into its base with PEFT and use the result.",
            )


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    if not path.exists() and (folder / _PICKLED_FILE).exists():
        raise ModelError(
            f"{folder} holds {_PICKLED_FILE}, a pickle, which can run code", fix="Save it as safetensors with PEFT."
        )
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise StorageError(f"{path} is missing", fix="Train the adapter again, or copy the whole folder.") from None
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path} is damaged ({error})", fix="Train the adapter again, or copy it again.") from None
    return tensors


def _pairs(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    sides: dict[str, dict[str, Tensor]] = {}
    for tensor_name, tensor in tensors.items():
        match = _KEY.fullmatch(tensor_name)
        if match is None or tensor.dim() != 2:
            raise ModelError(
                f"{path}: {tensor_name} {tuple(tensor.shape)} is no low-rank matrix of a linear layer",
                possible=f"{key('<module path>', 'A')} and {key('<module path>', 'B')}",
            )
        sides.setdefault(match["name"], {})[match["side"]] = tensor.to(torch.float32)
    for name, pair in sides.items():
        if len(pair) != 2 or pair["A"].shape[0] != pair["B"].shape[1]:
            shapes = ", ".join(f"{side} {tuple(tensor.shape)}" for side, tensor in sorted(pair.items()))
            raise StorageError(f"{path}: {name} has {shapes}; A [r, in] and B [out, r] were expected")
    if not sides:
        raise StorageError(f"{path} holds no matrices", fix="Train the adapter again.")
    return {name: (pair["A"], pair["B"]) for name, pair in sides.items()}


def _by_pattern(patterns: Mapping[str, float], name: str, default: float) -> float:
    """PEFT's rule: the first pattern that matches the path's end, as a regular expression, after a dot or alone."""
    return next((value for ending, value in patterns.items() if re.match(rf"(.*\.)?({ending})$", name)), default)


def _number(where: Path, config: Mapping[str, Any], name: str, default: int) -> float:
    value = config.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ModelError(f"{where}: {name} is {value!r}", possible="a number above 0")
    return value
