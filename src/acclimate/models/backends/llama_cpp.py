"""GGUF files read by llama.cpp itself, which the npm package node-llama-cpp brings along."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.core.pooling import truncate_dim
from acclimate.errors import ModelError, first_line
from acclimate.files import read_json
from acclimate.formats.engine_folder import GGUF
from acclimate.formats.folders import read_folder
from acclimate.models.backends.readers import Reader
from acclimate.types import Role

INSTALL = "npm install node-llama-cpp, beside node 20 or newer"
SCRIPT = Path(__file__).with_name("llama_cpp.mjs")
START_S, TEXT_S = 300.0, 60.0
"""Seconds after which llama.cpp is given up: to load a model, and for each text."""


@cache
def has_llama_cpp() -> bool:
    """Whether node and node-llama-cpp are here."""
    node = shutil.which("node")
    return node is not None and subprocess.run([node, str(SCRIPT), "--check"], capture_output=True).returncode == 0


def llama_cpp_reader(folder: Path, dim: int, max_tokens: int) -> Reader:
    """llama.cpp with its own tokenizer and pooling, behind the prompts of the folder's JSON files.

    Args:
        folder: of an export.
        dim: leading dimensions that are kept: llama.cpp gives all.
        max_tokens: the limit; llama.cpp refuses longer texts.
    """
    files = read_folder(folder)
    prompts = read_json(folder / "config_sentence_transformers.json")["prompts"]

    def read(texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        own = files.query_transformer if role == "query" else None
        asked = {
            "model": str(((own or files.transformer) / GGUF).resolve()),
            "contextSize": max_tokens,
            "texts": [prompts[role] + text for text in texts],
        }
        node = shutil.which("node") or "node"
        patience_s = START_S + TEXT_S * len(texts)
        try:
            done = subprocess.run(
                [node, str(SCRIPT)], input=json.dumps(asked), capture_output=True, text=True, timeout=patience_s
            )
        except subprocess.TimeoutExpired:
            raise ModelError(
                f"llama.cpp has not read the export within {patience_s:.0f} seconds", fix="Try it on an idle machine."
            ) from None
        if done.returncode != 0:
            raise ModelError(f"llama.cpp cannot read the export ({first_line(ValueError(done.stderr.strip()))})")
        vectors_ND = torch.tensor(json.loads(done.stdout)["vectors"], dtype=torch.float32)
        return truncate_dim(vectors_ND, dim).numpy()

    return read
