"""Checkpoints, from which a training resumes after a kill: a folder of safetensors and JSON, there whole or not at all.

A checkpoint holds what the steps so far have changed: trainable tensors, the optimiser's moments, the best tensors yet.
Batch order, drawn negatives and dropout are functions of (seed, step) and need no state; the frozen base is not stored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from acclimate.errors import StorageError
from acclimate.files import fsync, read_json, storage_errors, write_json

STATE_FILE = "state.json"
TENSOR_FILES = ("trainable", "moments", "best")
PARTIAL = "partial"


@dataclass(slots=True)
class Progress:
    """The state of a training after `step` steps, except tensors."""

    identity: str
    """Hash of the settings and the data; a checkpoint of another training is not used."""
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Time spent in steps (not in evaluations), over all starts."""
    best_step: int | None = None
    best_score: float | None = None
    base_score: float | None = None
    """The dev score before the first step."""
    stale: int = 0
    """Number of evaluations since the best one."""
    evaluations: int = 0
    """How often trained steps were scored so far: `best_score` is the highest of so many."""
    stopped: bool = False
    """No further step will be taken."""
    dtype: str = ""
    """The number format that the model computes in: chosen once, and kept when the training goes on."""
    threads: int = 0
    """CPU threads of the last step; 0 on a GPU. With another number, sums are rounded in another order."""
    metrics_bytes: int = 0
    """Length of metrics.jsonl up to here; what was written after it before a kill is cut off."""


@dataclass(slots=True)
class Checkpoint:
    """The state of a training, tensors included."""

    progress: Progress
    trainable: dict[str, Tensor]
    moments: dict[str, Tensor]
    """The optimiser's state, `<parameter>.<what>`."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The trainable tensors at `best_step`; empty until there is one."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Add a checkpoint to `folder` and then remove the older ones; a kill at any moment leaves one to go on from.

    Raises:
        StorageError: no space left, no permission; earlier checkpoints and artifacts are untouched.
    """
    partial = folder / PARTIAL
    final = folder / f"step-{checkpoint.progress.step:08d}"
    with _storage_errors(folder):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name in TENSOR_FILES:
                _save(partial / f"{name}.safetensors", getattr(checkpoint, name))
            write_json(partial / STATE_FILE, dataclasses.asdict(checkpoint.progress))
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            fsync(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    for older in _complete(folder)[:-1]:
        shutil.rmtree(older, ignore_errors=True)


def read_checkpoint(folder: Path, device: torch.device | str = "cpu") -> Checkpoint | None:
    """The latest checkpoint in `folder`, or None where there is none.

    Raises:
        StorageError: its files are damaged.
    """
    checkpoints = _complete(folder)
    if not checkpoints:
        return None
    latest = checkpoints[-1]
    try:
        progress = Progress(**read_json(latest / STATE_FILE))
        tensors: dict[str, Any] = {
            name: load_file(latest / f"{name}.safetensors", device=str(device)) for name in TENSOR_FILES
        }
    except (SafetensorError, OSError, TypeError) as error:
        raise StorageError(
            f"the checkpoint {latest} is damaged ({error})", fix="Delete this folder and start again."
        ) from None
    return Checkpoint(progress, **tensors)


def checkpoint_dtype(folder: Path, identity: str) -> str | None:
    """The number format of the training that the latest checkpoint is of; None where there is none of this identity."""
    checkpoints = _complete(folder)
    state = read_json(checkpoints[-1] / STATE_FILE) if checkpoints else {}
    return state.get("dtype") or None if state.get("identity") == identity else None


def discard_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a training."""
    shutil.rmtree(folder, ignore_errors=True)


def copy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies in contiguous memory."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / STATE_FILE).exists())


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    fsync(path)


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """safetensors reports a full disk in words of its own, not as an OSError."""
    with storage_errors(folder):
        try:
            yield
        except SafetensorError as error:
            if "os error 28" in str(error):
                raise StorageError(
                    f"{folder}: no space left on the disk", fix="Free some space and start again; it goes on."
                ) from None
            raise StorageError(f"{folder} cannot be written ({error})") from None
