"""`index --images`: pictures as documents of a run's index, in the space of its texts, by the run's projection."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np

from acclimate import processes
from acclimate.configs import ImagesConfig, RunConfig
from acclimate.data.images.build import decoded
from acclimate.data.images.rows import ImageRow, picture_rows
from acclimate.errors import DataError
from acclimate.evaluation.lexical import analyser_for
from acclimate.models.image_encoder import DECODERS
from acclimate.models.projection import ProjectedImages, project
from acclimate.ownership import check_replaceable
from acclimate.progress import progress
from acclimate.retrieval.index.of_run import check_writable, index_for, index_place, write_rejected
from acclimate.retrieval.index.pictures import (
    PICTURES,
    NewPicture,
    feed_pictures,
    made_by,
    of_another,
    picture_document,
)
from acclimate.retrieval.index.records import Vectors, problem
from acclimate.retrieval.index.reports import IndexReport
from acclimate.runs.images import image_features, open_images, open_projection, train_projection
from acclimate.runs.pictures import KeptPictures
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task
from acclimate.types import Rejected

LANGUAGE_SAMPLE = 300
"""Pictures by whose texts the language of an index is told, where it is made."""
SHOWN_REASONS = 3


def index_pictures(run: Path, sources: Sequence[Path], config: RunConfig) -> IndexReport:
    """Write pictures into the index of a run, which is made where there is none; those that are there are left alone.

    Of several processes the first one works. After an interruption, what was acknowledged is there, and the same call
    goes on.

    Args:
        run: its projection gives the vectors.
        sources: what `picture_rows` takes; if there are none, the run's own images.
        config: where the index and the image model are; how pictures are read.

    Returns:
        see `IndexReport`; its counts are of pictures.

    Raises:
        DataError: a source cannot be read, or none holds a usable picture.
        UsageError: the index holds vectors of another space.
        StorageError: there is no projection; the index or the pictures cannot be written.
    """
    return processes.on_main(lambda: _indexed(run, sources, config))


def _indexed(run: Path, sources: Sequence[Path], config: RunConfig) -> IndexReport:
    started = time.monotonic()
    task = one_task(run, config)
    place, kept = index_place(task), KeptPictures(task.folder.pictures)
    images = open_projection(run, config)
    check_writable(task, place, sources)
    check_replaceable(kept.folder, kept.objection, sources, option="run")
    source = _Given(sources, images, config.images) if sources else _Own(RunFolder(run), images)
    projection = made_by(images.projection.digest)
    pictures = _Once(source, projection)
    first = next(iter(pictures), None)
    if first is None:
        write_rejected(task, pictures.rejected)
        reasons = list(dict.fromkeys(row.reason for row in pictures.rejected))[:SHOWN_REASONS]
        raise DataError(f"no picture can be used ({'; '.join(reasons) or 'there are none'})", fix="Check the source.")
    fix = f"Train the projection in the space of its texts: {train_projection(run)}; or name another index: --at FOLDER"
    analyser = analyser_for(task.evaluation, islice(source.texts(), LANGUAGE_SAMPLE))
    with index_for(place, images, run, analyser, fix=fix) as index:
        with progress("index", source.count(), "pictures") as advance:
            fed = feed_pictures(index, chain([first], pictures), kept.keep, source.encode, advance)
        documents, held, stale = index.count(), index.count(PICTURES), index.count(of_another(projection))
    write_rejected(task, pictures.rejected)
    return {
        "place": place,
        "documents": documents,
        "read": fed.documents,
        "encoded": fed.encoded,
        "relabelled": fed.relabelled,
        "unchanged": fed.unchanged,
        "removed": 0,
        "deleted": 0,
        "rejected": dict(Counter(row.reason for row in pictures.rejected).most_common()),
        "rejected_rows": str(task.folder.not_indexed) if pictures.rejected else None,
        "ignored": [],
        "space": dataclasses.asdict(images.space),
        "pictures": held,
        "twice": pictures.twice,
        "stale": stale,
        "timings": {"index_s": round(time.monotonic() - started, 3)},
    }


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """A picture of a source."""

    source: str
    row: int
    name: str
    text: str
    group: str | None
    data: bytes


class _Own:
    """The images that the run has prepared, whose features are kept."""

    def __init__(self, run: RunFolder, images: ProjectedImages) -> None:
        self.dataset, self.bytes = open_images(run.images)
        self.features = image_features(run, self.dataset, self.bytes, images.encoder)
        self.head = images.projection.head
        self.rejected: list[Rejected] = []

    def count(self) -> int:
        return len(self.dataset.items)

    def texts(self) -> Iterator[str]:
        data = self.dataset
        for item in data.items:
            yield data.groups[item.group].name if data.kind == "classes" else data.texts[item.texts[0]].text

    def __iter__(self) -> Iterator[_Found]:
        data = self.dataset
        for row, (item, text) in enumerate(zip(data.items, self.texts(), strict=True)):
            group = text if data.kind == "classes" else None
            yield _Found("images.jsonl", row + 1, item.name, text, group, self.bytes[row])

    def encode(self, some: Sequence[NewPicture]) -> Vectors:
        return project(self.head, self.features[np.array([one.number for one in some])])


class _Given:
    """Pictures of other sources, read and decoded by threads ahead of the model."""

    def __init__(self, sources: Sequence[Path], images: ProjectedImages, config: ImagesConfig) -> None:
        self.sources, self.images, self.config = sources, images, config
        self.rejected: list[Rejected] = []

    def rows(self) -> Iterator[ImageRow | Rejected]:
        return chain.from_iterable(map(picture_rows, self.sources))

    def count(self) -> int:
        return sum(1 for _ in self.rows())

    def texts(self) -> Iterator[str]:
        return (_text(row) for row in self.rows() if isinstance(row, ImageRow))

    def __iter__(self) -> Iterator[_Found]:
        for row, picture in decoded(self.rows(), self.config, self.rejected, DECODERS):
            group = None if row.group is None else row.group.name
            yield _Found(row.source, row.row, row.name, _text(row), group, picture.data)

    def encode(self, some: Sequence[NewPicture]) -> Vectors:
        return self.images.encode([one.data for one in some])


def _text(row: ImageRow) -> str:
    return row.texts[0] if row.group is None else row.group.name


class _Once:
    """The pictures of a source that an index takes, as its documents, each once; read once."""

    def __init__(self, source: _Own | _Given, projection: str) -> None:
        self.source, self.projection = source, projection
        self.twice = 0
        self.unfit: list[Rejected] = []
        self.documents = self._documents()

    @property
    def rejected(self) -> list[Rejected]:
        """Rows without a picture, and pictures whose text or name no index takes."""
        return self.source.rejected + self.unfit

    def __iter__(self) -> Iterator[NewPicture]:
        return self.documents

    def _documents(self) -> Iterator[NewPicture]:
        seen: set[str] = set()
        for number, found in enumerate(self.source):
            sha256 = hashlib.sha256(found.data).hexdigest()
            if sha256 in seen:
                self.twice += 1
                continue
            seen.add(sha256)
            document = picture_document(
                sha256, found.text, file=found.name, projection=self.projection, group=found.group
            )
            if reason := problem(document):
                shown = found.name.encode("utf-8", "replace").decode()[:200]
                self.unfit.append(Rejected(found.source, found.row, reason, shown))
            else:
                yield NewPicture(document, found.data, number)
