"""Sources of images -> rows: a folder per class, or any table with an image, texts and classes in its columns."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from acclimate.data.hub import is_saved, load_saved
from acclimate.data.images.classes import CLASSES_FILE, ImageClass, by_name, read_classes
from acclimate.data.images.pictures import MAX_BYTES
from acclimate.data.images.video import FILES as VIDEO_FILES
from acclimate.data.kinds import is_table_name
from acclimate.data.names import ANCHORS, POSITIVES, SPLIT_NAMES, TEXTS, TITLE
from acclimate.data.records import BadRowError, normalise
from acclimate.data.tables import Row, Rows, read_table
from acclimate.errors import DataError
from acclimate.types import Rejected, Split

IMAGES = ("image", "image_path", "img", "picture", "photo", "jpg", "png", "video", "video_path", "file_name")
"""Names of the column that holds images or videos; the first that is there counts."""
CAPTIONS = (*TEXTS, "caption", "captions", "description", TITLE, *ANCHORS, *POSITIVES, "document")
"""Columns whose texts belong to the row's image."""
CLASSES = ("class", "label", "category", "class_name")
SPLITS_OF = ("split",)
FILES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", *VIDEO_FILES)
BATCH_ROWS = 64
"""Rows of a columnar file held at a time: each may hold an image."""
URL = re.compile(r"(https?|ftp|s3|gs)://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image, not yet read, and what is said about it."""

    source: str
    row: int
    name: str
    """What people find it by: its path, as the source has it, or the source and row."""
    read: Callable[[], bytes]
    """Reads its bytes; raises `BadRowError` where it cannot."""
    texts: tuple[str, ...] = ()
    group: ImageClass | None = None
    split: Split | None = None


def image_rows(source: Path) -> Iterator[ImageRow | Rejected]:
    """Read the rows of a source, image by image; an image's bytes are read only where they are asked for.

    Args:
        source: a folder of a folder per class; a folder with a table (images.jsonl, metadata.csv, train.parquet …) and
            maybe classes.json; a folder that `datasets` saved; or one table.

    Raises:
        DataError: there is no such source, or nothing of these forms in it.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder", fix="Check the path.")
    if source.is_file():
        yield from _rows_of(read_table(source, source.name, batch_rows=BATCH_ROWS), source.parent, {}, None)
        return
    classes_file = source / CLASSES_FILE
    classes = read_classes(classes_file) if classes_file.is_file() else {}
    if is_saved(source):
        yield from _saved(source, classes)
        return
    if tables := _tables(source):
        for table in tables:
            split = SPLIT_NAMES.get(table.name.split(".")[0].split("-")[0].lower())
            yield from _rows_of(read_table(table, table.name, batch_rows=BATCH_ROWS), source, classes, split)
        return
    yield from _folders(source, classes)


def picture_rows(source: Path) -> Iterator[ImageRow | Rejected]:
    """Read the rows of a source as `image_rows` does, and beside that image files alone, whose text is their name.

    Args:
        source: what `image_rows` takes; one image file; or a folder in which image files lie, with or without folders
            that are classes beside them.

    Raises:
        DataError: as `image_rows`.
    """
    if source.is_file() and _is_image(source):
        yield _alone(source)
        return
    alone: list[Path] = []
    if source.is_dir() and not is_saved(source) and not _tables(source):
        alone = [path for path in sorted(source.iterdir()) if _is_image(path)]
    yield from map(_alone, alone)
    if not alone or any(_is_image(path) for folder in _folders_in(source) for path in folder.rglob("*")):
        yield from image_rows(source)


def _alone(path: Path) -> ImageRow:
    words = normalise(re.sub(r"[\s_-]+", " ", path.stem))
    return ImageRow(path.name, 1, path.name, partial(_read_file, path), (words or path.name,))


def source_files(source: Path) -> list[Path]:
    """List the files by whose bytes a source's rows are decided, images included."""
    if source.is_file():
        return [source]
    return sorted(path for path in source.rglob("*") if path.is_file() and not path.name.startswith("cache-"))


def _tables(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _is_table(path)]


def _is_table(path: Path) -> bool:
    return path.is_file() and path.name != CLASSES_FILE and path.suffix != ".txt" and is_table_name(path)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in FILES and path.is_file()


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _folders(source: Path, classes: Mapping[str, ImageClass]) -> Iterator[ImageRow | Rejected]:
    """A folder per class; above these there may be folders train, dev and test."""
    folders = _folders_in(source)
    given = {path: SPLIT_NAMES[path.name.lower()] for path in folders if path.name.lower() in SPLIT_NAMES}
    found = 0
    for top in folders:
        inner = _folders_in(top) if top in given else [top]
        for folder in inner:
            group = classes.get(folder.name) or by_name(folder.name.replace("_", " "))
            for path in sorted(folder.rglob("*")):
                if _is_image(path):
                    found += 1
                    name = path.relative_to(source).as_posix()
                    yield ImageRow(name, 1, name, partial(_read_file, path), (), group, given.get(top))
    if not found:
        raise DataError(
            f"{source} holds no images that are known by a class or a text",
            possible="a folder per class; or a table with columns such as image and text",
        )


def _saved(source: Path, classes: Mapping[str, ImageClass]) -> Iterator[ImageRow | Rejected]:
    """A folder that `datasets` saved: images undecoded, numbers of classes as their names."""
    import datasets

    for name, table in load_saved(source).items():
        for column, feature in table.features.items():
            if isinstance(feature, datasets.Image):
                table = table.cast_column(column, datasets.Image(decode=False))
        labels = {column: it.names for column, it in table.features.items() if isinstance(it, datasets.ClassLabel)}

        def named(table: Any = table, name: str = name, labels: Mapping[str, list[str]] = labels) -> Rows:
            for number, values in enumerate(table, start=1):
                told = {column: names[values[column]] for column, names in labels.items()}
                yield Row(name, number, {**values, **told})

        yield from _rows_of(named(), source, classes, SPLIT_NAMES.get(name.lower()))


def _rows_of(
    rows: Rows, folder: Path, classes: Mapping[str, ImageClass], split: Split | None
) -> Iterator[ImageRow | Rejected]:
    """The rows of one table; a row that says nothing of an image, or nothing about it, is rejected."""
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        try:
            yield _row(row, folder, classes, split)
        except BadRowError as error:
            yield _rejected(row, str(error))


def _row(row: Row, folder: Path, classes: Mapping[str, ImageClass], split: Split | None) -> ImageRow:
    by_lower = {key.lower(): value for key, value in row.values.items()}
    value = next((by_lower[key] for key in IMAGES if by_lower.get(key) not in (None, "")), None)
    if value is None:
        raise BadRowError(f"no image (the column is called {', '.join(IMAGES[:3])} …)")
    name, read = _image(value, folder, f"{row.source}:{row.row}")
    texts = [text for key in CAPTIONS for text in _texts(by_lower.get(key))]
    known = next((by_lower[key] for key in CLASSES if by_lower.get(key) not in (None, "")), None)
    group = None if known is None else classes.get(str(known)) or by_name(str(known))
    if group is None and not texts:
        raise BadRowError("neither a text nor a class")
    said = next((str(by_lower[key]).lower() for key in SPLITS_OF if by_lower.get(key)), None)
    if said is not None and said not in SPLIT_NAMES:
        raise BadRowError(f"unknown split ({said[:40]!r}; {', '.join(SPLIT_NAMES)} are known)")
    own = SPLIT_NAMES[said] if said else split
    return ImageRow(row.source, row.row, name, read, tuple(dict.fromkeys(texts)), group, own)


def _rejected(row: Row, reason: str) -> Rejected:
    """The row as a rejected one; bytes are no text to show."""
    shown = {key: value for key, value in row.values.items() if isinstance(value, str | int | float)}
    return Row(row.source, row.row, shown).rejected(reason)


def _texts(value: Any) -> list[str]:
    items = value if isinstance(value, list | tuple) else [value]
    return [text for item in items if isinstance(item, str) and (text := normalise(item))]


def _image(value: Any, folder: Path, otherwise: str) -> tuple[str, Callable[[], bytes]]:
    """The name of an image, and what reads it: a path, bytes, what `datasets` writes, or base64 in JSON."""
    if isinstance(value, dict):
        if value.get("bytes"):
            return str(value.get("path") or otherwise), partial(_given, value["bytes"])
        value = value.get("path")
    if isinstance(value, bytes | bytearray | memoryview):
        return otherwise, partial(_given, value)
    if not isinstance(value, str) or not value:
        raise BadRowError("no image (neither a path nor bytes)")
    if value.startswith("data:image/"):
        return otherwise, partial(_base64, value)
    if URL.match(value):
        raise BadRowError("a URL (images are read from disk: download it, and give its path)")
    path = Path(value)
    return value, partial(_read_file, path if path.is_absolute() else folder / path)


def _given(data: Any) -> bytes:
    return bytes(data)


def _base64(url: str) -> bytes:
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise BadRowError(f"not base64 ({error})") from None


def _read_file(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadRowError(f"image file too large ({size / 2**20:.0f} MiB, at most {MAX_BYTES // 2**20})")
        return path.read_bytes()
    except OSError as error:
        raise BadRowError(f"image file cannot be read ({error.strerror or type(error).__name__})") from None
