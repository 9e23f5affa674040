"""An index of another space, built beside the one that is searched, which it replaces at once when it is whole.

It lies in `.work/NAME/SPACE` beside the index. Until it replaces the older one, that is searched, and nobody may write
it. What a kill leaves is gone on with; one that is whole is put in place by whoever first needs its space.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acclimate import processes
from acclimate.core.batching import batched
from acclimate.counting import counted
from acclimate.errors import AcclimateError, StorageError
from acclimate.files import discard, fsync, read_json, recover, storage_errors, work_folder, write_json
from acclimate.models.text_encoder import TextEncoder
from acclimate.ownership import check_replaceable, claim_work
from acclimate.progress import progress, say
from acclimate.retrieval.index.feeding import Whole, feed
from acclimate.retrieval.index.local.index import LocalIndex
from acclimate.retrieval.index.local.store import objection
from acclimate.retrieval.index.pictures import TEXTS, is_picture
from acclimate.retrieval.index.protocol import Index
from acclimate.text_use import SpaceId

CARRIED = 512
"""Pictures that are written together."""
OLD = "old"
"""Where `files.recover` finds what was put away."""
WHOLE = ".whole.json"
"""Ends the name of the file that says of which state of the older index an index is the whole: {"state"}."""


@dataclass(frozen=True, slots=True)
class Built:
    """An index that is whole, beside the one that it can replace."""

    documents: int
    encoded: int
    """Those that were not there from an earlier start."""
    left_out: int
    """Pictures of the older index that are not in this one: their vectors are of another space."""
    publish: Callable[[], None]
    """Replaces the older one."""


@contextmanager
def built_beside(place: Path, encoder: TextEncoder, *, keep: bool = False) -> Iterator[Built]:
    """Encode all that an index holds, into another one beside it; inside, nobody else may write the older one.

    Pictures keep their vectors. Where the space is another one they are left out, which is said: only a projection that
    is trained into it gives them new ones. Those that an index kept for the way back holds are still in it.

    Several processes share the encoding. After an interruption the same call goes on.

    Args:
        place: the index, in a folder.
        encoder: gives the vectors.
        keep: the older index is kept beside the new one, for the way back.

    Raises:
        StorageError: there is no index, another process writes it, or the new one cannot be written.
    """
    fresh = _beside(place, encoder.space)
    with ExitStack() as until_it_is_replaced:
        with contextlib.closing(_opened(place)) as old:
            if processes.is_main():  # what is written into the old one from here on would be lost
                until_it_is_replaced.enter_context(LocalIndex.sole_writer(place))
            processes.on_main(lambda: _prepare_work(place, fresh))
            count = old.count()
            writer = _written(fresh, encoder.space, old) if processes.is_main() else nullcontext()
            pictures: list[str] = []
            left_out = 0
            with writer as new, progress("index", count, "documents") as advance:
                fed = feed(new, _texts(old, pictures), lambda texts: encoder.encode(texts, "document"), advance)
                if new is not None:
                    left_out = _bring_pictures(old, new, pictures)
                    _remove_gone(old, new, count - len(pictures))
                    count = new.count()
            processes.on_main(lambda: write_json(_mark(fresh), {"state": old.state}))
        count, encoded, left_out = processes.from_main((count, fed.encoded, left_out))
        if left_out:
            say(_left_out(place, left_out))
        yield Built(count, encoded, left_out, lambda: processes.on_main(lambda: _replace(place, fresh, keep=keep)))


def put_in_place(place: Path, space: SpaceId) -> bool:
    """Let an index of this space replace another, if a whole one lies beside it: a kill came before that was done.

    Returns:
        Whether it did; not where the older one has changed since, or is being written.
    """
    fresh = _beside(place, space)
    if not (_mark(fresh).is_file() and fresh.is_dir()):
        return False
    try:
        bring_back(place)
        with LocalIndex.sole_writer(place):
            with contextlib.closing(_opened(place)) as old:
                is_whole = bool(read_json(_mark(fresh))["state"] == old.state)
            if is_whole:
                _replace(place, fresh, keep=True)
    except (AcclimateError, OSError):
        return False
    return is_whole


def bring_back(place: Path) -> None:
    """Put the older index back, if a kill has left it where it was to make room for the new one."""
    old = work_folder(place) / OLD
    if place.exists() or not old.is_dir():
        return
    with contextlib.suppress(StorageError), LocalIndex.sole_writer(old):  # or it is being replaced right now
        recover(place)


def _replace(place: Path, fresh: Path, *, keep: bool) -> None:
    """Put the new one where the older one is, and that where the way back begins, or nowhere."""
    work = work_folder(place)
    with contextlib.closing(_opened(place)) as index:
        earlier = _beside(place, index.space)
    for folder in (path for path in work.iterdir() if path not in (fresh, _mark(fresh))):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    old = work / OLD
    place.rename(old)
    fresh.rename(place)  # after a kill before it, `recover` puts the old one back
    fsync(place.parent)
    _mark(fresh).unlink(missing_ok=True)
    if keep and objection(old) == "" and earlier != fresh:
        old.rename(earlier)
    else:
        discard(old, place, lambda folder: objection(folder) == "")


def _beside(place: Path, space: SpaceId) -> Path:
    """Where an index of a space is built: an unfinished one of another model is no start for this one."""
    return work_folder(place) / space.digest[:16]


def _mark(fresh: Path) -> Path:
    return fresh.with_name(fresh.name + WHOLE)


def _prepare_work(place: Path, fresh: Path) -> None:
    """Make sure that an index may be replaced, and that there is a folder for work in progress beside it."""
    check_replaceable(place, objection, option="--at")
    with storage_errors(place):
        claim_work(work_folder(place).parent)
        _mark(fresh).unlink(missing_ok=True)


def _opened(place: Path) -> LocalIndex:
    bring_back(place)
    if not place.is_dir():
        raise StorageError(f"{place}: there is no index", fix="Make it with: acclimate index RUN [CORPUS …]")
    return LocalIndex.open(place)


@contextmanager
def _written(fresh: Path, space: SpaceId, old: Index) -> Iterator[LocalIndex]:
    with contextlib.closing(LocalIndex.open(fresh, space, old.analyser)) as index:
        yield index


def _texts(index: Index, pictures: list[str]) -> Iterator[Whole]:
    """Give the documents that are texts; the ids of the others are put into `pictures`."""
    for stored in index.iterate():
        if is_picture(stored.document):
            pictures.append(stored.document.id)
        else:
            yield Whole(stored.document.id, (stored.document,))


def _bring_pictures(old: Index, new: Index, ids: list[str]) -> int:
    """Write pictures with the vectors that they have, where the space is the same; return how many `new` lacks."""
    lacking = 0
    for some in batched(ids, CARRIED):
        if old.space == new.space:
            found = list(old.get(some).values())
            new.upsert([stored.document for stored in found], np.stack([stored.vector for stored in found]))
        lacking += len(some) - len(new.get(some))
    return lacking


def _remove_gone(old: Index, new: Index, texts: int) -> None:
    """Remove what was deleted since an earlier start; of pictures in another space, nobody can tell."""
    is_same = old.space == new.space
    if (new.count() <= old.count()) if is_same else (new.count(TEXTS) <= texts):
        return
    there = (one.document for one in new.iterate())
    new.delete([one.id for one in there if (is_same or not is_picture(one)) and not old.get([one.id])])


def _left_out(place: Path, count: int) -> str:
    return (
        f"warning: {counted(count, 'pictures')} of {place} left out: the vectors lie in the space of before, and only "
        "a projection makes new ones. Train it again: acclimate adapt IMAGES --image-model MODEL --out RUN; then: "
        "acclimate index RUN --images"
    )
