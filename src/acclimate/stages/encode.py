"""encode: a file of texts -> a file of unit vectors."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.data.facts import evenly
from acclimate.data.texts import read_texts
from acclimate.errors import StorageError, UsageError
from acclimate.files import hash_text, open_output, work_folder
from acclimate.models.reading import reading_warnings
from acclimate.ownership import FORMAT, check_replaceable, no_objection
from acclimate.progress import say
from acclimate.retrieval.shard_files import encode_shards
from acclimate.runs.resolve import load, load_whole, trained_folder
from acclimate.runs.step import parts_read
from acclimate.types import Role

FORMATS = (".npy", ".safetensors")
MARK = {"format": FORMAT, "version": "1"}
"""What a .safetensors file of ours says of itself."""


def encode(
    source: Path, role: Role, adapter: Path | None, out: Path, config: RunConfig, *, replace: bool = False
) -> dict[str, Any]:
    """Encode the texts of a file, one row each, in their order.

    Several processes share the work. After an interruption the same call goes on: what is encoded lies in files beside
    `out` until that is written.

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
        StorageError: `out` cannot be written.
    """
    if out.suffix not in FORMATS:
        raise UsageError(f"--out {out} ends with {out.suffix or 'nothing'}", possible=", ".join(FORMATS))
    objection = no_objection if replace and not out.is_dir() else _not_vectors
    check_replaceable(out, objection, [source, *parts_read([] if adapter is None else [adapter])])
    if not out.parent.is_dir():
        raise StorageError(f"{out} cannot be written (there is no folder {out.parent})", fix="Make it.")
    texts = read_texts(source)
    if adapter is None:
        encoder = load_whole(config.base_model, **config.loading)
    else:
        encoder = load(trained_folder(adapter), base=config.model, **config.loading)
    for note in reading_warnings({"texts": encoder.reading(evenly(texts), role)}):
        say(f"warning: {note}")
    started = time.perf_counter()
    key = hash_text(encoder.role_fingerprint(role), *texts)[:32]
    files = encode_shards(encoder, texts, work_folder(out) / key, role, label="encode")
    seconds = time.perf_counter() - started
    processes.on_main(lambda: _write(out, files, encoder.use.dim))
    return {
        "texts": len(texts),
        "dim": encoder.use.dim,
        "seconds": round(seconds, 3),
        "texts_per_s": round(len(texts) / max(seconds, 1e-9), 1),
        "model": encoder.source.id,
        "out": str(out),
    }


def _write(out: Path, files: Sequence[Path], dim: int) -> None:
    """Put the files together, whole or not at all, and remove them."""
    vectors = np.concatenate([np.empty((0, dim), np.float32), *(np.load(file, mmap_mode="r") for file in files)])
    with open_output(out) as stream:
        if out.suffix == ".npy":
            np.save(stream, vectors)
        else:
            stream.write(safetensors_bytes({"vectors": vectors}, metadata=MARK))
    shutil.rmtree(work_folder(out))
    with suppress(OSError):  # other work is in progress there
        work_folder(out).parent.rmdir()


def _not_vectors(out: Path) -> str:
    """The objection to replacing a file of vectors: it does not say that it is ours (an .npy cannot)."""
    if out.suffix == ".safetensors" and out.is_file():
        with suppress(SafetensorError, OSError), safe_open(out, "numpy") as file:
            if (file.metadata() or {}).items() >= MARK.items():
                return ""
    return f"{out} is there already, and nothing in it says that acclimate wrote it (--replace takes its place)"
