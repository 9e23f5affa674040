"""encode: a file of texts -> a file of unit vectors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as safetensors_bytes

from acclimate.configs import RunConfig
from acclimate.data.facts import evenly
from acclimate.data.texts import read_texts
from acclimate.errors import UsageError
from acclimate.files import open_output
from acclimate.models.encoder import Encoder
from acclimate.models.reading import reading_warnings
from acclimate.progress import say
from acclimate.runs.resolve import load, trained_folder
from acclimate.types import Role

FORMATS = (".npy", ".safetensors")


def encode(source: Path, role: Role, adapter: Path | None, out: Path, config: RunConfig) -> dict[str, Any]:
    """Encode the texts of a file, one row each, in their order.

    Args:
        source: .jsonl with a field "text" (or "sentence", "content"), else plain text, one per line.
        role: whether the texts are queries or documents.
        adapter: an adapter or run folder; its base is the one that it names, or lies where `config.model` says.
        out: .npy (float32 [N, D]) or .safetensors (the tensor "vectors"); written whole or not at all.
        config: model, prompts, dim, device, dtype.

    Returns:
        {"texts", "dim", "seconds", "texts_per_s", "model", "out"}.

    Raises:
        DataError: a row without a text, named.
        UsageError: an unknown format of `out`.
    """
    if out.suffix not in FORMATS:
        raise UsageError(f"--out {out} ends with {out.suffix or 'nothing'}", possible=", ".join(FORMATS))
    texts = read_texts(source)
    if adapter is None:
        encoder = Encoder.load(config.base_model, **config.loading)
    else:
        encoder = load(trained_folder(adapter), base=config.model, **config.loading)
    for note in reading_warnings({"texts": encoder.reading(evenly(texts), role)}):
        say(f"warning: {note}")
    started = time.perf_counter()
    vectors = encoder.encode(texts, role, label="encode")
    seconds = time.perf_counter() - started
    _write(out, vectors)
    return {
        "texts": len(texts),
        "dim": int(vectors.shape[1]),
        "seconds": round(seconds, 3),
        "texts_per_s": round(len(texts) / max(seconds, 1e-9), 1),
        "model": encoder.source.id,
        "out": str(out),
    }


def _write(out: Path, vectors: NDArray[np.float32]) -> None:
    """Whole or not at all."""
    with open_output(out) as stream:
        if out.suffix == ".npy":
            np.save(stream, vectors)
        else:
            stream.write(safetensors_bytes({"vectors": vectors}))
