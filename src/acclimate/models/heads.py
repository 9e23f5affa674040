"""Dense layers between pooling and normalisation, as sentence-transformers keeps them (EmbeddingGemma has two).

They belong to the base: frozen, in float32, whatever trains. Shapes: N texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from acclimate.errors import ModelError
from acclimate.files import read_json
from acclimate.formats.folders import head_sizes

ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)
}
WEIGHTS_FILE = "model.safetensors"


def load_heads(folders: Sequence[Path], device: torch.device) -> nn.Module | None:
    """[N, D] -> [N, D'] through all of them in a row; None where there is none.

    Raises:
        ModelError: weights or activation are missing, unknown, or of another shape.
    """
    if not folders:
        return None
    heads = nn.Sequential(*(layer for folder in folders for layer in _load(folder)))
    return heads.requires_grad_(False).eval().to(device)


def _load(folder: Path) -> tuple[nn.Module, nn.Module]:
    config: dict[str, Any] = read_json(folder / "config.json")
    name = str(config.get("activation_function") or "Tanh").rsplit(".", 1)[-1]  # sentence-transformers' own default
    if name not in ACTIVATIONS:
        raise ModelError(f"{folder}: activation_function is {name}", possible=", ".join(ACTIVATIONS))
    linear = nn.Linear(*head_sizes(folder), bias=bool(config.get("bias", True)))
    try:
        weights = load_file(folder / WEIGHTS_FILE)
        linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in weights.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder / WEIGHTS_FILE} cannot be used ({reason})", fix="Fetch the model again.") from None
    return linear, ACTIVATIONS[name]()
