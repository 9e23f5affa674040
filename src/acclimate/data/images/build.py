"""A source of images -> an `ImageDataset`: read, normalised, grouped, split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, TypeAlias

from acclimate.configs import ImagesConfig
from acclimate.core.same_text import text_id
from acclimate.counting import counted
from acclimate.data.images.classes import ImageClass, class_texts
from acclimate.data.images.dataset import BYTES_FILE, ImageDataset, ImageGroup, ImageItem, ImageText
from acclimate.data.images.pictures import Picture
from acclimate.data.images.rows import ImageRow, image_rows
from acclimate.data.images.split import drop_copies, split_images
from acclimate.data.images.video import normalise
from acclimate.data.records import BadRowError
from acclimate.errors import DataError, UsageError
from acclimate.files import storage_errors
from acclimate.progress import progress
from acclimate.types import Rejected

AHEAD = 64
"""Images being read and decoded beyond the one that is written next."""
Begun: TypeAlias = tuple[ImageRow | Rejected, Future[Picture] | None]


@dataclass(slots=True)
class _Kept:
    """The images that can be used, and their rows, without the bytes of the source."""

    items: list[ImageItem]
    rows: list[ImageRow]
    rejected: list[Rejected]
    changed: Counter[str]


def build_images(
    source: Path, folder: Path, config: ImagesConfig, *, seed: int, limit: int | None, threads: int
) -> tuple[ImageDataset, list[Rejected]]:
    """Read a source, and write the bytes of its images into `folder`, one by one: memory does not grow with them.

    Args:
        source: see `image_rows`.
        folder: exists; gets the file of all images.
        config: sizes, templates, splits.
        seed: of the splits.
        limit: use at most this many rows, taken evenly.
        threads: that read and decode.

    Returns:
        the dataset, and the rows that are not in it, with reasons.

    Raises:
        DataError: the source cannot be used, or no row of it.
        UsageError: it has fewer classes than are to be held out.
        StorageError: no space is left.
    """
    kept = _read(source, folder, config, limit, threads)
    if not kept.items:
        reasons = "; ".join(dict.fromkeys(row.reason for row in kept.rejected[:50])) or "no rows"
        raise DataError(f"{source} holds no usable image ({reasons})", fix="Look at the reasons, and at the path.")
    classes = all(row.group for row in kept.rows)
    dataset = _by_classes(kept, config) if classes else _by_captions(kept)
    if len(dataset.groups) < 2:
        raise DataError(f"{source}: all images belong to one {'class' if classes else 'text'}")
    dataset = split_images(dataset, [row.split for row in kept.rows], config, seed)
    kept.rejected += drop_copies(dataset, kept.rows)
    dataset.info = _info(dataset, kept)
    return dataset, kept.rejected


def _read(source: Path, folder: Path, config: ImagesConfig, limit: int | None, threads: int) -> _Kept:
    kept, first = _Kept([], [], [], Counter()), dict[str, int]()
    total = sum(1 for _ in image_rows(source))
    rows = _evenly(image_rows(source), total, limit)
    with (
        storage_errors(folder),
        (folder / BYTES_FILE).open("wb") as stream,
        progress("reading images", min(total, limit or total), "images") as advance,
    ):
        for row, picture in decoded(rows, config, kept.rejected, threads):
            advance(1)
            digest = hashlib.sha256(picture.data).hexdigest()
            before = first.get(digest)
            if before is not None and row.group is None and kept.rows[before].split == row.split:
                known = kept.rows[before]  # one image with several captions, a row each
                kept.rows[before] = replace(known, texts=tuple(dict.fromkeys((*known.texts, *row.texts))))
                continue
            at = stream.tell() if before is None else kept.items[before].at
            first.setdefault(digest, len(kept.items))
            if before is None:
                stream.write(picture.data)
            size = (picture.width, picture.height)
            kept.items.append(ImageItem(row.name, 0, (), "train", at, len(picture.data), *size, digest))
            kept.rows.append(replace(row, read=_gone))
            kept.changed.update(picture.changes)
    return kept


def _gone() -> NoReturn:
    """Stand in for what reads an image's bytes, which may hold them: they have been written."""
    raise AssertionError("an image is read once")


def _evenly(rows: Iterable[ImageRow | Rejected], total: int, limit: int | None) -> Iterator[ImageRow | Rejected]:
    """All rows, or this many of them, evenly spaced: a source is often sorted by class."""
    taken = min(total, total if limit is None else limit)
    for number, row in enumerate(rows):
        if (number + 1) * taken // total > number * taken // total:
            yield row


def decoded(
    rows: Iterable[ImageRow | Rejected], config: ImagesConfig, rejected: list[Rejected], threads: int
) -> Iterator[tuple[ImageRow, Picture]]:
    """Read and decode the pictures of rows by threads, `AHEAD` of whoever asks for the next one.

    Args:
        rows: of `image_rows`.
        config: how pictures are made plain.
        rejected: gets the rows without a picture, with reasons.
        threads: that read and decode.

    Returns:
        Rows with their pictures, in order.
    """

    def load(row: ImageRow) -> Picture:
        return normalise(row.read(), config)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for row, future in _begun(rows, pool, load):
            if isinstance(row, Rejected) or future is None:
                rejected.append(row)  # type: ignore[arg-type] # one without a picture is a rejected one
                continue
            try:
                yield row, future.result()
            except BadRowError as error:
                rejected.append(Rejected(row.source, row.row, str(error), row.name[:200]))


def _begun(rows: Iterable[ImageRow | Rejected], pool: ThreadPoolExecutor, load: object) -> Iterator[Begun]:
    """Yield rows with what was begun for each; `AHEAD` of them are begun before the first is waited for."""
    waiting: list[Begun] = []
    for row in rows:
        waiting.append((row, None if isinstance(row, Rejected) else pool.submit(load, row)))  # type: ignore[arg-type]
        if len(waiting) > AHEAD:
            yield waiting.pop(0)
    yield from waiting


def _by_classes(kept: _Kept, config: ImagesConfig) -> ImageDataset:
    """Each image has a class: its texts are the class's, and what its own row says beside."""
    number: dict[str, int] = {}
    texts: dict[tuple[int, int], int] = {}
    found: list[ImageText] = []
    of_class: dict[int, list[int]] = {}
    items = []

    def text_number(group: int, text: str) -> int:
        key = (group, text_id(text))
        if key not in texts:
            texts[key] = len(found)
            found.append(ImageText(text, group))
        return texts[key]

    for item, row in zip(kept.items, kept.rows, strict=True):
        assert row.group is not None  # all have one: see the caller
        group = number.setdefault(row.group.name, len(number))
        if group not in of_class:
            of_class[group] = [text_number(group, text) for text in _texts_of(row.group, config)]
        own = [text_number(group, text) for text in row.texts]
        items.append(replace(item, group=group, texts=tuple(dict.fromkeys((*of_class[group], *own)))))
    return ImageDataset("classes", items, found, [ImageGroup(name, False) for name in number])


def _texts_of(one: ImageClass, config: ImagesConfig) -> list[str]:
    texts = class_texts(one, config.image_templates)
    if not texts:
        fields = ", ".join("{" + name + "}" for name in one.fields)
        raise UsageError(f"no template gives a text for the class {one.name!r}", possible=f"templates with {fields}")
    return texts


def _by_captions(kept: _Kept) -> ImageDataset:
    """Each image has its own texts; what shares a text, or is the same picture, belongs together."""
    number: dict[int, int] = {}
    shown: list[str] = []
    own: list[tuple[int, ...]] = []
    for row in kept.rows:
        told = [*row.texts, *(() if row.group is None else (row.group.name,))]
        for text in told:
            if text_id(text) not in number:
                number[text_id(text)] = len(shown)
                shown.append(text)
        own.append(tuple(dict.fromkeys(number[text_id(text)] for text in told)))
    root_N = _components([(item.sha256, *map(str, texts)) for item, texts in zip(kept.items, own, strict=True)])
    group_of = {root: group for group, root in enumerate(dict.fromkeys(root_N))}
    items = [
        replace(item, group=group_of[root], texts=texts)
        for item, root, texts in zip(kept.items, root_N, own, strict=True)
    ]
    of_text = {text: item.group for item in items for text in item.texts}
    names: dict[int, str] = {}
    for item in items:
        names.setdefault(item.group, shown[item.texts[0]])
    texts = [ImageText(text, of_text[place]) for place, text in enumerate(shown)]
    return ImageDataset("captions", items, texts, [ImageGroup(names[group], False) for group in sorted(names)])


def _components(keys: list[tuple[str, ...]]) -> list[int]:
    """For every row the first row of its component: rows that share a key are in one."""
    parent = list(range(len(keys)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    first: dict[str, int] = {}
    for number, own in enumerate(keys):
        for key in own:
            one, other = sorted((root(number), root(first.setdefault(key, number))))
            parent[other] = one
    return [root(number) for number in range(len(keys))]


def _info(dataset: ImageDataset, kept: _Kept) -> dict[str, object]:
    splits = Counter(item.split for item in dataset.items)
    warnings = []
    if not splits["dev"]:
        warnings.append("there is no dev split: the last step of the training is kept, unseen")
    if not splits["test"]:
        warnings.append("there is no test split: nothing can be measured")
    if kept.rejected:
        warnings.append(f"{counted(len(kept.rejected), 'rows')} of the source cannot be used: see rejected.jsonl")
    return {
        "counts": {
            "images": len(dataset.items),
            "texts": len(dataset.texts),
            "groups": len(dataset.groups),
            "held_out": sum(group.held_out for group in dataset.groups),
            **{split: splits[split] for split in ("train", "dev", "test")},
            "rejected": dict(Counter(row.reason.partition(" (")[0] for row in kept.rejected).most_common()),
            "changed": dict(kept.changed.most_common()),
        },
        "warnings": warnings,
    }
