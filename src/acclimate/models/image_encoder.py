"""ImageEncoder: pictures -> features, with threads that decode and resize ahead of the model.

Shapes: N images, F features.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.counting import counted
from acclimate.data.images.pictures import decode_frames
from acclimate.files import MAY_NOT, hash_text, storage_errors
from acclimate.models.image_towers import ImageTower, open_tower
from acclimate.progress import progress, say

NAMES = ".names"
"""Ending of the file that says which images a file of features has, in the order of its rows."""
BATCH_IMAGES = 32
BATCHES_AHEAD = 3
"""Batches whose pixels are prepared beyond the one that the tower computes: memory does not grow with N."""
DECODERS = max(2, min(8, (os.cpu_count() or 2)))
"""Threads that decode and resize; Pillow lets go of Python's lock while it does."""


class ImageEncoder:
    """An image tower, fed by threads. The counterpart of `TextEncoder.encode` for features: `features`.

    Attributes:
        tower: what computes.
    """

    def __init__(self, tower: ImageTower) -> None:
        self.tower = tower

    @classmethod
    def load(cls, name: str, *, device: str = "auto") -> ImageEncoder:
        """Load the tower of a name; see `open_tower`."""
        return cls(open_tower(name, device=device))

    def features(self, pictures: Sequence[bytes], *, label: str = "") -> NDArray[np.float32]:
        """Compute pooled features [N, F] of pictures, in their order.

        Args:
            pictures: bytes of normalised pictures (`data.images.pictures`), read one by one.
            label: what the progress bar says; empty is silent.
        """
        found = np.empty((len(pictures), self.tower.features), np.float32)
        for start, features_NF in self.batches(pictures, label=label):
            found[start : start + len(features_NF)] = features_NF
        return found

    def pixels(self, pictures: Sequence[bytes], numbers: Sequence[int]) -> NDArray[np.float32]:
        """Decode and prepare some pictures, by threads: [N, C, H, W]; of a video its middle frame."""
        with ThreadPoolExecutor(DECODERS) as pool:
            found = pool.map(lambda number: self._pixels(pictures, number), numbers)
            return np.stack([frames_KCHW[len(frames_KCHW) // 2] for frames_KCHW in found])

    def batches(self, pictures: Sequence[bytes], *, label: str = "") -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (number of the first image, features) batch by batch."""
        starts = list(range(0, len(pictures), BATCH_IMAGES))
        with progress(label, len(pictures), "images") as advance, ThreadPoolExecutor(DECODERS) as pool:
            begun: list[list[Future[NDArray[np.float32]]]] = []
            for place in range(len(starts) + BATCHES_AHEAD):
                if place < len(starts):
                    batch = range(starts[place], min(starts[place] + BATCH_IMAGES, len(pictures)))
                    begun.append([pool.submit(self._pixels, pictures, number) for number in batch])
                if place >= BATCHES_AHEAD:
                    futures = begun.pop(0)
                    yield starts[place - BATCHES_AHEAD], self._pooled([future.result() for future in futures])
                    advance(len(futures))

    def _pixels(self, pictures: Sequence[bytes], number: int) -> NDArray[np.float32]:
        return np.stack([self.tower.pixels(image) for image in decode_frames(pictures[number])])

    def _pooled(self, pictures: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Features of a batch; of a video the mean over its frames."""
        counts = np.array([len(frames_KCHW) for frames_KCHW in pictures])
        features = self.tower.forward(np.concatenate(pictures))
        if counts.max() == 1:
            return features
        sums = np.add.reduceat(features, np.cumsum(counts) - counts, axis=0)
        return np.asarray(sums / counts[:, None], np.float32)


def cached_features(
    encoder: ImageEncoder, pictures: Sequence[bytes], names: Sequence[str], cache: Path, *, label: str = ""
) -> NDArray[np.float32]:
    """Compute features once, and keep them in a file, memory-mapped.

    Args:
        encoder: its fingerprint is part of the file's name.
        pictures: see `ImageEncoder.features`.
        names: hash of each picture: what the file's name is made of, besides.
        cache: folder of `RUN/.work`; where it may not be written, features are in memory only.
        label: what the progress bar says.

    Raises:
        StorageError: no space is left.
    """
    folder = cache / "features" / encoder.tower.fingerprint[:32]
    path = folder / f"{hash_text(*names)[:32]}.npy"
    kept = _kept(path, len(pictures), encoder.tower.features)
    if kept is not None:
        return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in MAY_NOT:
            return encoder.features(pictures, label=label)
        raise
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with storage_errors(path):
            _write(partial, encoder, pictures, names, folder, label)
            path.with_suffix(NAMES).write_text("\n".join(names), encoding="utf-8")
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return np.asarray(np.load(path, mmap_mode="r"))


def _write(
    path: Path, encoder: ImageEncoder, pictures: Sequence[bytes], names: Sequence[str], folder: Path, label: str
) -> None:
    """Write features row by row: those that another file of the folder has are taken from it."""
    width = encoder.tower.features
    known = _known(folder, width)
    missing = [number for number, name in enumerate(names) if name not in known]
    if len(missing) < len(names):
        say(f"{label}: {counted(len(names) - len(missing), 'images')} of an earlier start are not encoded again")
    header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (len(names), width)}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        start, row_bytes = stream.tell(), 4 * width
        for number, name in enumerate(names):
            if name in known:
                rows, place = known[name]
                stream.seek(start + number * row_bytes)
                stream.write(np.ascontiguousarray(rows[place], np.float32).data)
        for first, features_NF in encoder.batches(SomePictures(pictures, missing), label=label):
            for place, row in enumerate(features_NF):
                stream.seek(start + missing[first + place] * row_bytes)
                stream.write(np.ascontiguousarray(row, np.float32).data)
        stream.flush()
        os.fsync(stream.fileno())


def _known(folder: Path, width: int) -> dict[str, tuple[NDArray[np.float32], int]]:
    """Name of an image -> the file with its features, and its row there."""
    found: dict[str, tuple[NDArray[np.float32], int]] = {}
    for listed in sorted(folder.glob(f"*{NAMES}")):
        names = listed.read_text(encoding="utf-8").split("\n")
        if (rows := _kept(listed.with_suffix(".npy"), len(names), width)) is not None:
            found |= {name: (rows, place) for place, name in enumerate(names)}
    return found


class SomePictures(Sequence[bytes]):
    """Some of the pictures, read one by one."""

    def __init__(self, pictures: Sequence[bytes], numbers: Sequence[int]) -> None:
        self._pictures, self._numbers = pictures, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        return self._pictures[self._numbers[index]]


def _kept(path: Path, count: int, features: int) -> NDArray[np.float32] | None:
    try:
        found: NDArray[np.float32] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (count, features) and found.dtype == np.float32 else None
