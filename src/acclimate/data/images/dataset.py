"""ImageDataset: images, the texts about them, and which belongs to which; its folder, read and written in one place.

All images lie in one file, one behind the other, and are read from it one by one: memory does not grow with them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.errors import StorageError
from acclimate.files import iter_jsonl, read_json, write_json, write_jsonl
from acclimate.types import Rejected, Split

BYTES_FILE = "images.bin"
IMAGES_FILE = "images.jsonl"
TEXTS_FILE = "texts.jsonl"
GROUPS_FILE = "groups.jsonl"
FACTS_FILE = "images.json"
DAMAGED = "Prepare the images again."


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image of a dataset."""

    name: str
    """Its path in the source, or source and row."""
    group: int
    """Number of its class, or of the set of images and captions that belong together."""
    texts: tuple[int, ...]
    """Numbers of the texts that it answers, and that answer it."""
    split: Split
    at: int
    """Where its bytes begin in the file."""
    size: int
    width: int
    height: int
    sha256: str
    """Hash of the bytes that are kept."""


@dataclass(frozen=True, slots=True)
class ImageText:
    """One text about images."""

    text: str
    group: int


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """A class, or a set of images and captions that belong together."""

    name: str
    held_out: bool
    """Whether nothing of it is trained on: it is unseen."""


@dataclass(slots=True)
class ImageDataset:
    """Images beside texts. `kind` is "classes" (each image has a class, and the class has texts) or "captions"."""

    kind: str
    items: list[ImageItem]
    texts: list[ImageText]
    groups: list[ImageGroup]
    info: dict[str, Any] = field(default_factory=dict)
    """What images.json says besides: counts, warnings."""

    def rows(self, split: Split, *, held_out: bool | None = None) -> NDArray[np.int64]:
        """Numbers of the images of a split, ascending; of held-out groups only, or of the others only, if asked."""
        wanted = (
            number
            for number, item in enumerate(self.items)
            if item.split == split and (held_out is None or self.groups[item.group].held_out == held_out)
        )
        return np.fromiter(wanted, np.int64)

    def texts_of(self, rows: Iterable[int]) -> NDArray[np.int64]:
        """Numbers of the texts that belong to some images, ascending, each once."""
        return np.array(sorted({text for row in rows for text in self.items[row].texts}), np.int64)

    @property
    def group_N(self) -> NDArray[np.int64]:  # noqa: N802 - the letter is the shape
        """Each image's group."""
        return np.array([item.group for item in self.items], np.int64)


class ImageBytes(Sequence[bytes]):
    """The images of a dataset's folder as bytes, by number; the file is mapped, and closed by `close`.

    Args:
        folder: of the dataset.
        items: of the dataset.
    """

    def __init__(self, folder: Path, items: Sequence[ImageItem]) -> None:
        self._items = items
        path = folder / BYTES_FILE
        expected = max((item.at + item.size for item in items), default=0)
        if not path.is_file() or path.stat().st_size < expected:
            raise StorageError(f"{path} is missing or cut short", fix=DAMAGED)
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        item = self._items[index]
        return self._map[item.at : item.at + item.size]

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()


def is_image_dataset(folder: Path) -> bool:
    """Whether `write_image_dataset` wrote a folder."""
    return (folder / FACTS_FILE).is_file()


def write_image_dataset(folder: Path, dataset: ImageDataset, rejected: Sequence[Rejected]) -> None:
    """Write all but the images' bytes, which are there already.

    Raises:
        StorageError: no space, no permission.
    """
    write_jsonl(folder / IMAGES_FILE, map(asdict, dataset.items))
    write_jsonl(folder / TEXTS_FILE, map(asdict, dataset.texts))
    write_jsonl(folder / GROUPS_FILE, map(asdict, dataset.groups))
    write_jsonl(folder / "rejected.jsonl", map(asdict, rejected))
    write_json(folder / FACTS_FILE, {"kind": dataset.kind, **dataset.info})


def load_image_dataset(folder: Path) -> ImageDataset:
    """Read what `write_image_dataset` wrote.

    Raises:
        StorageError: a file is missing or damaged.
    """
    if not is_image_dataset(folder):
        raise StorageError(
            f"{folder} holds no images", fix="Prepare them: acclimate adapt IMAGES --image-model MODEL --out RUN"
        )
    info = read_json(folder / FACTS_FILE)
    try:
        items = [ImageItem(**{**row, "texts": tuple(row["texts"])}) for row in _rows(folder / IMAGES_FILE)]
        texts = [ImageText(**row) for row in _rows(folder / TEXTS_FILE)]
        groups = [ImageGroup(**row) for row in _rows(folder / GROUPS_FILE)]
        return ImageDataset(info.pop("kind"), items, texts, groups, info)
    except (KeyError, TypeError) as error:
        raise StorageError(f"{folder} is damaged ({type(error).__name__}: {error})", fix=DAMAGED) from None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise StorageError(f"{path} is missing", fix=DAMAGED)
    for line in iter_jsonl(path):
        if line.value is None:
            raise StorageError(f"{path} row {line.row} is damaged ({line.error})", fix=DAMAGED)
        yield line.value
