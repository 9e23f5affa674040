"""A checkpoint is there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from acclimate.errors import StorageError
from acclimate.training import checkpoint as module
from acclimate.training.checkpoint import Checkpoint, Progress, read_checkpoint, write_checkpoint


def example(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensor = torch.randn(3, 2, generator=generator)
    return Checkpoint(
        Progress("same", step=step, tokens=7 * step, best_step=1, best_score=0.5, metrics_bytes=12),
        {"layer.A": tensor},
        {"layer.A.exp_avg": tensor * 2, "layer.A.step": torch.tensor(float(step))},
        {"layer.A": tensor * 3},
    )


def test_written_then_read_is_the_same(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, example(4))
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.progress == example(4).progress
    for part in ("trainable", "moments", "best"):
        expected = getattr(example(4), part)
        assert set(getattr(found, part)) == set(expected)
        assert all(torch.equal(getattr(found, part)[name], expected[name]) for name in expected)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "nowhere") is None


def test_only_the_latest_stays(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        write_checkpoint(tmp_path, example(step))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000100"]


def test_a_half_written_one_is_not_seen(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, example(1))
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "trainable.safetensors").write_bytes(b"half")
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.progress.step == 1
    write_checkpoint(tmp_path, example(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


@pytest.mark.parametrize("when", ["save_file", "rename"])
def test_no_space_is_one_of_our_errors_and_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    write_checkpoint(tmp_path, example(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if when == "rename":
        monkeypatch.setattr(Path, "rename", full)
    else:
        monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(StorageError, match="no space left on the disk"):
        write_checkpoint(tmp_path, example(2))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.progress.step == 1


def test_what_safetensors_says_of_a_full_disk_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:  # its own words on a full tmpfs
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(StorageError, match="no space left on the disk"):
        write_checkpoint(tmp_path, example(1))
    assert not list(tmp_path.iterdir())


def test_a_damaged_one_is_one_of_our_errors(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, example(1))
    path = tmp_path / "step-00000001" / "moments.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(StorageError, match="damaged"):
        read_checkpoint(tmp_path)
