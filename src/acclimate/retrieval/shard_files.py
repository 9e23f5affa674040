"""Many texts encoded by any number of processes, on any number of machines, into files of so many rows each.

Which rows a file holds depends on nothing but their number, so that the files are the same byte for byte however many
processes there are, and a launch that is repeated goes on where the files end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from acclimate import processes
from acclimate.files import open_output, storage_errors
from acclimate.progress import progress
from acclimate.retrieval.top_k import Vectors
from acclimate.types import Role

if TYPE_CHECKING:
    from acclimate.models.text_encoder import TextEncoder

SHARD_TEXTS = 2048
"""Rows of a file: what a process that is killed has to encode again."""


def encode_shards(encoder: TextEncoder, texts: Sequence[str], folder: Path, role: Role, label: str = "") -> list[Path]:
    """Encode texts into files [SHARD_TEXTS, D] of one folder, which all processes see; each takes every n-th file.

    Args:
        encoder: gives the vectors.
        texts: the same in all processes.
        folder: named by what the vectors depend on: files that are there are kept.
        role: whose prompt is used.
        label: what the progress bar says; empty is silent.

    Returns:
        The files, in the order of the texts; in every process, once all of them are there.

    Raises:
        StorageError: a file cannot be written.
    """
    files = [folder / f"{number:07d}.npy" for number in range(-(-len(texts) // SHARD_TEXTS))]
    blocks = [texts[number * SHARD_TEXTS : (number + 1) * SHARD_TEXTS] for number in range(len(files))]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    own = list(zip(files, blocks, strict=True))[processes.index() :: processes.count()]
    missing = [(file, block) for file, block in own if not _is_whole(file, len(block), encoder.use.dim)]
    total, left = (sum(len(block) for _, block in some) for some in (own, missing))
    with progress(label, total, "texts", done=total - left) as advance:
        for file, block in missing:
            vectors = encoder.encode(block, role)
            with open_output(file) as stream:
                np.save(stream, vectors)
            advance(len(block))
    processes.barrier()
    return files


def _is_whole(file: Path, rows: int, dim: int) -> bool:
    """Whether a file was written: it comes into being as a whole, and is looked at in case the disk has lost it."""
    try:
        vectors: Vectors = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return vectors.shape == (rows, dim) and vectors.dtype == np.float32
