"""Several processes encode a file, or feed an index, as one does, byte for byte; also when one of them is killed."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from acclimate.retrieval.index.feeding import BATCH_DOCUMENTS
from acclimate.retrieval.index.of_run import opened_index
from acclimate.retrieval.shard_files import SHARD_TEXTS
from tests.launch import Ended, launch
from tests.tiny_run import WORDS, write_tiny_bert

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
WORKERS = 3
KILLED = 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")


def texts(count: int) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(count)]


def settings(model: Path) -> list[str]:
    return ["--model", str(model), "--pooling", "mean", "--device", "cpu", "--dtype", "float32"]


def codes(ended: Sequence[Ended]) -> list[int]:
    return [process.code for process in ended]


def encode(folder: Path, model: Path, workers: int, *, kill_at: int = 0) -> list[Ended]:
    """Encode folder/texts.txt; one worker is killed once so many files are there."""
    command = ["encode", str(folder / "texts.txt"), "--out", str(folder / "out.npy"), *settings(model)]

    def files() -> int:
        return len(list((folder / ".work").rglob("*.npy")))

    when = {"kill_when": lambda: files() >= kill_at, "killed": [KILLED]} if kill_at else {}
    return launch(folder, *[command] * workers, **when)  # type: ignore[arg-type]


def test_encode_with_a_worker_killed_and_the_launch_repeated(tmp_path: Path, model: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    lines = texts(9 * SHARD_TEXTS + 7)
    for folder in (alone, together):
        folder.mkdir()
        (folder / "texts.txt").write_text("\n".join(lines) + "\n")
    assert codes(encode(alone, model, 1)) == [0]

    ended = encode(together, model, WORKERS, kill_at=2)
    assert all(codes(ended)) and codes(ended)[KILLED] < 0, "all end where one is killed"
    assert not (together / "out.npy").exists()
    assert 2 <= len(list((together / ".work").rglob("*.npy"))) < 10

    ended = encode(together, model, WORKERS)
    assert codes(ended) == [0] * WORKERS, ended
    assert (together / "out.npy").read_bytes() == (alone / "out.npy").read_bytes()
    assert "vectors of 16 dimensions" in ended[0].stdout and ended[1].stdout == ""
    assert not (together / ".work").exists()


def test_files_that_are_there_are_kept(tmp_path: Path, model: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(texts(5 * SHARD_TEXTS)) + "\n")
    ended = encode(tmp_path, model, WORKERS, kill_at=1)
    assert all(codes(ended))
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / ".work").rglob("*.npy")}
    ended = encode(tmp_path, model, WORKERS, kill_at=len(done) + 1)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / ".work").rglob("*.npy")}
    if after:  # it may have been done before the kill
        assert {path: after[path] for path in done} == done


def test_index_with_a_worker_killed_and_the_launch_repeated(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "corpus.jsonl"
    lines = texts(12 * BATCH_DOCUMENTS + 5)
    source.write_text("".join(json.dumps({"_id": f"d{row:05}", "text": text}) + "\n" for row, text in enumerate(lines)))

    def command(run: str) -> list[str]:
        return ["index", str(tmp_path / run), str(source), *settings(model)]

    assert codes(launch(tmp_path, command("alone"))) == [0]

    def written() -> bool:
        place = tmp_path / "together" / "index"
        if not place.is_dir():
            return False
        try:
            with opened_index(str(place)) as index:
                return index.count() >= BATCH_DOCUMENTS
        except Exception:  # it is being made
            return False

    ended = launch(tmp_path, *[command("together")] * WORKERS, kill_when=written, killed=[KILLED])
    assert all(codes(ended)) and codes(ended)[KILLED] < 0
    with opened_index(str(tmp_path / "together" / "index")) as index:
        acknowledged = index.count()
    assert BATCH_DOCUMENTS <= acknowledged < len(lines)
    ended = launch(tmp_path, *[command("together")] * WORKERS)
    assert codes(ended) == [0] * WORKERS, ended
    assert f"{acknowledged:,} unchanged" in ended[0].stdout and ended[1].stdout == ""
    with (
        opened_index(str(tmp_path / "alone" / "index")) as one,
        opened_index(str(tmp_path / "together" / "index")) as other,
    ):
        for left, right in zip(one.iterate(), other.iterate(), strict=True):
            assert left.document == right.document
            assert np.array_equal(left.vector, right.vector)
