"""encode: a file of texts -> a file of unit vectors."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from acclimate.configs import RunConfig
from acclimate.data.facts import evenly
from acclimate.data.texts import read_texts
from acclimate.errors import UsageError
from acclimate.files import open_output
from acclimate.models.encoder import Encoder
from acclimate.models.reading import reading_warnings
from acclimate.ownership import FORMAT, check_replaceable, no_objection
from acclimate.progress import say
from acclimate.runs.resolve import load, trained_folder
from acclimate.runs.step import parts_read
from acclimate.types import Role

FORMATS = (".npy", ".safetensors")
MARK = {"format": FORMAT, "version": "1"}
"""What a .safetensors file of ours says of itself."""


def encode(
    source: Path, role: Role, adapter: Path | None, out: Path, config: RunConfig, *, replace: bool = False
) -> dict[str, Any]:
    """Encode the texts of a file, one row each, in their order.

    Args:
        source: any table with a field "text" (or "contents", "content", "sentence", "passage"), or plain text, one per
            line.
        role: whether the texts are queries or documents.
        adapter: an adapter or run folder; its base is the one that it names, or lies where `config.model` says.
        out: .npy (float32 [N, D]) or .safetensors (the tensor "vectors"); written whole or not at all.
        config: model, prompts, dim, device, dtype.
        replace: a file at `out` goes, whoever wrote it; else only one of vectors of ours, which .safetensors can say.

    Returns:
        {"texts", "dim", "seconds", "texts_per_s", "model", "out"}.

    Raises:
        DataError: a row without a text, named.
        UsageError: an unknown format of `out`, or it is a file that stays.
    """
    if out.suffix not in FORMATS:
        raise UsageError(f"--out {out} ends with {out.suffix or 'nothing'}", possible=", ".join(FORMATS))
    objection = no_objection if replace and not out.is_dir() else _not_vectors
    check_replaceable(out, objection, [source, *parts_read([] if adapter is None else [adapter])])
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
            stream.write(safetensors_bytes({"vectors": vectors}, metadata=MARK))


def _not_vectors(out: Path) -> str:
    """The objection to replacing a file of vectors: it does not say that it is ours (an .npy cannot)."""
    if out.suffix == ".safetensors" and out.is_file():
        with contextlib.suppress(SafetensorError, OSError), safe_open(out, "numpy") as file:
            if (file.metadata() or {}).items() >= MARK.items():
                return ""
    return f"{out} is there already, and nothing in it says that acclimate wrote it (--replace takes its place)"
