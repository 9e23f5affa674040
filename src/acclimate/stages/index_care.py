"""What is done with an index that is there: described, checked, repaired, encoded again, exported."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.configs import RunConfig
from acclimate.counting import counted
from acclimate.errors import UsageError
from acclimate.files import hash_file, open_output
from acclimate.models.projection import is_projection, load_projection
from acclimate.ownership import check_replaceable
from acclimate.progress import progress, say
from acclimate.retrieval.index.adopting import SAMPLED, likeness
from acclimate.retrieval.index.beside import built_beside
from acclimate.retrieval.index.local.index import LocalIndex
from acclimate.retrieval.index.of_run import index_place, is_folder, opened_index, read_fusion
from acclimate.retrieval.index.pictures import PICTURE, PICTURES, is_picture, made_by, of_another
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Document, Stored
from acclimate.runs.opening import load_current
from acclimate.runs.pictures import KeptPictures
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task


def index_info(run: Path, config: RunConfig) -> dict[str, Any]:
    """Describe the index of a run.

    Returns:
        {"place", "backend", "documents", "pictures" (among them), "space", "fusion" (how its rankings become one, or
        None), and what its backend says}.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    task = one_task(run, config)
    with opened_index(index_place(task)) as index:
        info, pictures = index.info(), index.count(PICTURES)
    said = {name: getattr(info, name) for name in ("place", "backend", "documents")} | {"pictures": pictures}
    return {**said, "space": dataclasses.asdict(info.space), "fusion": read_fusion(task, info.space)[1], **info.details}


def verify_index(run: Path, config: RunConfig) -> dict[str, Any]:
    """Look for damage: documents that are counted and not there, vectors that are not those of their texts.

    Of an index in a folder also the file of documents, and what is derived from it. A sample of the texts is encoded
    again by the run's model, if the index has vectors of its space; the files of the pictures have to be there.

    Returns:
        {"place", "documents", "sampled", "problems": [in words]}; no problem where all is well.

    Raises:
        StorageError: there is no index, or it cannot be opened at all.
    """
    task = one_task(run, config)
    place = index_place(task)
    with opened_index(place) as index:
        problems = index.verify() if isinstance(index, LocalIndex) else []
        count, there, texts = index.count(), 0, 0
        every = max(1, (count - index.count(PICTURES)) // SAMPLED)
        sample: list[Stored] = []
        pictures = _Files(KeptPictures(task.folder.pictures))
        with progress("verify", count, "documents") as advance:
            for stored in index.iterate():
                there += 1
                if is_picture(stored.document):
                    pictures.look(stored.document)
                else:
                    texts += 1
                    if texts % every == 0 and len(sample) < SAMPLED:
                        sample.append(stored)
                advance()
        problems += pictures.problems + _of_earlier_projections(index, RunFolder(run).projection)
        if there != count:
            problems.append(f"{count:,} documents were counted, {there:,} are there")
        encoder = load_current(RunFolder(run).adapter, config.model, **task.config.loading)
        if index.space != encoder.space:
            say(f"{place} holds vectors of another space than {run}'s model, so none was encoded again")
            sample.clear()
        if sample:
            encoded = encoder.encode([stored.document.text for stored in sample], "document")
            found = likeness(np.stack([stored.vector for stored in sample]), encoded)
            if not found.is_the_same:
                problems.append(f"vectors are not those that {run}'s model makes of the texts: {found}")
        return {"place": place, "documents": count, "sampled": len(sample), "problems": problems}


class _Files:
    """The files of an index's pictures, looked at one by one; of the first `SAMPLED` also what is in them."""

    def __init__(self, kept: KeptPictures) -> None:
        self.kept = kept
        self.seen = self.missing = self.damaged = 0

    def look(self, picture: Document) -> None:
        """Look at one."""
        sha256 = str(picture.metadata[PICTURE])
        self.seen += 1
        if not self.kept.has(sha256):
            self.missing += 1
        elif self.seen <= SAMPLED and hash_file(self.kept.place(sha256)) != sha256:
            self.damaged += 1

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words."""
        wrong = {"are missing": self.missing, "are damaged: delete them": self.damaged}
        again = f"of {counted(self.seen, 'pictures')} in {self.kept.folder} {{count:,}} {{what}}"
        return [again.format(count=count, what=what) for what, count in wrong.items() if count]


def _of_earlier_projections(index: Index, folder: Path) -> list[str]:
    """Say how many pictures have vectors of another projection than the run's, if it has one."""
    stale = index.count(of_another(made_by(load_projection(folder).digest))) if is_projection(folder) else 0
    return [f"{counted(stale, 'pictures')} of an earlier projection: acclimate index RUN --images"] if stale else []


def rebuild_index(run: Path, config: RunConfig) -> dict[str, Any]:
    """Make the search structures of an index anew from its documents; nothing is encoded.

    Returns:
        {"place", "documents", "timings"}.

    Raises:
        StorageError: there is no index; another process is writing it.
        UsageError: it is on a server, which does so itself.
    """
    started = time.monotonic()
    place = index_place(one_task(run, config))
    with opened_index(place) as index:
        if not isinstance(index, LocalIndex):
            raise UsageError(
                f"{place}: what searches need is derived from the documents by the server itself",
                possible="an index in a folder",
                fix="Qdrant makes it anew when it has to; on Postgres: REINDEX TABLE.",
            )
        index.rebuild()
        count = index.count()
    return {"place": place, "documents": count, "timings": {"rebuild_s": round(time.monotonic() - started, 3)}}


def reencode_index(run: Path, config: RunConfig) -> dict[str, Any]:
    """Encode all that an index holds with the run's present model; the old one is searched until the new one is whole.

    Several processes share the encoding. After an interruption the same call goes on.

    Returns:
        {"place", "documents", "encoded", "pictures_left_out" (those of another space: nothing makes their vectors but
        a projection), "timings"}.

    Raises:
        StorageError: there is no index, or the new one cannot be written.
        UsageError: it is on a server.
    """
    started = time.monotonic()
    task = one_task(run, config)
    place = index_place(task)
    if not is_folder(place):
        raise UsageError(
            f"{place} is on a server", fix=f"Make an index in a folder, and move it there: acclimate index {run} --to"
        )
    encoder = load_current(RunFolder(run).adapter, config.model, **task.config.loading)
    with built_beside(Path(place), encoder) as built:
        built.publish()
    seconds = round(time.monotonic() - started, 3)
    return {
        "place": place,
        "documents": built.documents,
        "encoded": built.encoded,
        "pictures_left_out": built.left_out,
        "timings": {"index_s": seconds},
    }


def export_index(run: Path, out: Path, config: RunConfig) -> dict[str, Any]:
    """Write all documents as JSONL, which `index` reads: {"_id", "text", "metadata", and of a chunk where it is from}.

    Returns:
        {"place", "documents", "out"}.

    Raises:
        StorageError: there is no index; the file cannot be written.
        UsageError: the file is there already.
    """
    place = index_place(one_task(run, config))
    there = [place] if is_folder(place) else []
    check_replaceable(out, lambda out: f"{out} is there already", there, option="file")
    written = 0
    with (
        opened_index(place) as index,
        open_output(out) as stream,
        progress("export", index.count(), "documents") as advance,
    ):
        for stored in index.iterate():
            stream.write((json.dumps(_row(stored), ensure_ascii=False) + "\n").encode())
            written += 1
            advance()
    return {"place": place, "documents": written, "out": str(out)}


def _row(stored: Stored) -> dict[str, Any]:
    document = stored.document
    row: dict[str, Any] = {"_id": document.id, "text": document.text, "metadata": dict(document.metadata)}
    if document.parent is not None:
        row |= {"parent": document.parent, "start": document.start, "end": document.end}
    return row
