"""Vectors of a corpus, kept on disk and memory-mapped: a folder per model and role.

Shapes: M documents, D dimensions.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from acclimate import processes
from acclimate.files import MAY_NOT, WORK, hash_text, storage_errors
from acclimate.ownership import claim_work
from acclimate.progress import say
from acclimate.retrieval.shares import joined, stride
from acclimate.retrieval.top_k import BLOCK_DOCUMENTS, Vectors
from acclimate.types import Role

if TYPE_CHECKING:
    from acclimate.models.text_encoder import TextEncoder

MODEL_FOLDER = "[0-9a-f]{32}"
"""How the folder of one model's vectors is called."""
BLOCK_TEXTS = 16384
"""Texts encoded between two writes to the cache."""
KEPT_MODELS = 6
"""Number of models (counted per role) whose vectors a cache keeps: base, teacher and adapted of a run."""


def encode_corpus(
    encoder: TextEncoder,
    texts: Sequence[str],
    cache: Path | None,
    label: str = "",
    *,
    role: Role = "document",
    task: str | None = None,
) -> Vectors:
    """Encode texts to unit vectors [M, D], kept on disk and memory-mapped where a cache is given.

    A cache keeps the vectors of the `KEPT_MODELS` models used last, so those of replaced adapters are deleted. Several
    processes share the work: all have to call this, and all get all vectors.

    Args:
        encoder: gives the vectors; its fingerprint is part of the cache's key.
        texts: in the order of the rows.
        cache: folder of cached vectors; if not given, the vectors are in memory only.
        label: what the progress bar says; empty is silent.
        role: whose prompt is used.
        task: the task whose prompt is used.

    A cache that may not be written (a run on a disk for reading only) gives what it holds; the rest is in memory only.

    Raises:
        StorageError: no space is left for the cache.
    """
    if cache is None or not texts:
        return joined(processes.gather(encoder.encode(stride(texts), role, task, label=label)))
    path = vectors_path(encoder, texts, cache, role, task)
    with storage_errors(path):
        if not processes.on_main(lambda: _load_vectors(path, len(texts), encoder.use.dim) is not None):
            if not processes.on_main(lambda: _is_writable(path)):
                say(f"{cache} may not be written: these vectors are not kept")
                return joined(processes.gather(encoder.encode(stride(texts), role, task, label=label)))
            _write_vectors(path, encoder, texts, role, task, label)
        vectors: Vectors = np.load(path, mmap_mode="r")
        processes.on_main(lambda: _forget_unused(cache, path.parent))
    return vectors


def vectors_path(encoder: TextEncoder, texts: Sequence[str], cache: Path, role: Role, task: str | None = None) -> Path:
    """Where `encode_corpus` keeps the vectors: a folder per model and role, named by hashes of what they depend on."""
    return cache / encoder.role_fingerprint(role, task)[:32] / f"{hash_text(*texts)[:32]}.npy"


def cached_vectors(encoder: TextEncoder, texts: Sequence[str], cache: Path) -> Vectors | None:
    """Return documents' vectors [M, D] where the cache has them, else None."""
    return _load_vectors(vectors_path(encoder, texts, cache, "document"), len(texts), encoder.use.dim)


def _load_vectors(path: Path, count: int, dim: int) -> Vectors | None:
    """Read cached vectors; None where there are none, or where the file is damaged (they are then made again)."""
    try:
        vectors: Vectors = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if vectors.shape != (count, dim) or vectors.dtype != np.float32:
        return None
    for start in range(0, count, BLOCK_DOCUMENTS):
        block = vectors[start : start + BLOCK_DOCUMENTS]
        # Rows are unit vectors: holes and flipped bits show in the norm. Reading once also warms the page cache.
        if not np.all(np.abs(np.einsum("nd,nd->n", block, block) - 1.0) < 1e-3):
            return None
    return vectors


def _forget_unused(cache: Path, used: Path) -> None:
    """Note that one model's folder is in use, and delete the folders unused for longest; nothing where that may not be
    written."""
    now = time.time_ns()
    try:
        os.utime(used, ns=(now, now))
    except OSError as error:
        if error.errno in MAY_NOT:
            return
        raise
    own = (path for path in cache.iterdir() if re.fullmatch(MODEL_FOLDER, path.name) and path.is_dir())
    by_use = sorted(own, key=lambda path: path.stat().st_mtime_ns)
    for folder in by_use[:-KEPT_MODELS]:
        shutil.rmtree(folder, ignore_errors=True)


def _is_writable(path: Path) -> bool:
    """Whether the folder for a file of vectors can be made, and a file in it."""
    try:
        if path.parent.parent.parent.name == WORK:
            claim_work(path.parent.parent.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.access(path.parent, os.W_OK | os.X_OK)
    except OSError as error:
        if error.errno in MAY_NOT:
            return False
        raise


def _write_vectors(
    path: Path, encoder: TextEncoder, texts: Sequence[str], role: Role, task: str | None, label: str
) -> None:
    """Encode block by block into `path`, whole or not at all: each process every n-th block, in its place.

    Plain writes, not a writable memory map: on a full disk those raise, whereas a map would kill the process.
    """
    partial = processes.on_main(lambda: _new_file(path, (len(texts), encoder.use.dim)))
    count = processes.count()
    size = min(BLOCK_TEXTS, -(-len(texts) // count))
    rounds = -(-len(texts) // (size * count))
    try:
        with partial.path.open("r+b") as stream:
            for number in range(processes.index(), rounds * count, count):
                block = texts[number * size : (number + 1) * size]  # none in the last round, maybe
                block_label = f"{label} {number // count + 1}/{rounds}" if label and rounds > 1 else label
                vectors_ND = encoder.encode(block, role, task, label=block_label)
                stream.seek(partial.header + number * size * vectors_ND.strides[0])
                stream.write(np.ascontiguousarray(vectors_ND, np.float32).data)
            stream.flush()
            os.fsync(stream.fileno())
        processes.barrier()
        processes.on_main(lambda: partial.path.replace(path) and None)
    finally:
        if processes.is_main():
            partial.path.unlink(missing_ok=True)


class _NewFile(NamedTuple):
    """An .npy file in the making, and how long its header is."""

    path: Path
    header: int


def _new_file(path: Path, shape: tuple[int, int]) -> _NewFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return _NewFile(partial, stream.tell())
