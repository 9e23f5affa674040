"""ServedIndex: a run's index while the service runs: searched by many, written by one thread, followed where another
process changes or replaces it.

Searches and writes run in threads of their own, so that the event loop goes on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from acclimate.core.analyser import Analyser, language_of
from acclimate.core.filters import Metadata
from acclimate.core.highlights import Span, highlights
from acclimate.errors import AcclimateError, StorageError
from acclimate.retrieval.index.beside import put_in_place
from acclimate.retrieval.index.feeding import Encode, Fed, Whole, feed, remove
from acclimate.retrieval.index.of_run import is_folder
from acclimate.retrieval.index.opening import open_index
from acclimate.retrieval.index.pictures import PICTURES, NewPicture, feed_pictures, first_texts, picture_id, sha256_of
from acclimate.retrieval.index.pictures import Encode as EncodePictures
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Document, Hit, IndexInfo, Query, Stored, check_space
from acclimate.runs.pictures import KeptPictures
from acclimate.runs.run_folder import RunFolder
from acclimate.serve.errors import ServiceError
from acclimate.serve.metrics import Metrics
from acclimate.serve.opened_index import OpenedIndex, inode_of, is_there, retire
from acclimate.serve.opening import ServedRun
from acclimate.serve.writing import partly_stored, parts_of
from acclimate.text_use import SpaceId

T = TypeVar("T")

READERS = 4
"""Threads that search; a local index searches one at a time anyway, but reads its documents' rows beside that."""
WAITING = 256
"""Calls that may wait for an index; beyond that they are refused."""
EARLIER_S = 60.0
"""How long an index that was replaced by one of another space is kept, for requests that were encoded before."""
SAMPLE = 200
"""Documents that are looked at for the names of the metadata fields."""


class IndexSummary(NamedTuple):
    """What there is to say of an index."""

    info: IndexInfo
    language: str | None
    """Whose words are stemmed; None: no word is."""
    sample: list[Metadata]
    """The metadata of its first `SAMPLE` texts."""
    pictures: int
    """How many of its documents are pictures."""


class ServedIndex:
    """The index of one run.

    Attributes:
        name: of the run.
        model: whose queries search it, by its name in the registry.
        task: whose prompts queries and documents get; None: the default ones.
        place: folder or address.
        fusion: how its two rankings become one.
        refusal: which questions are not answered; None where the dev split has not said so.

    Args:
        run: whose index it is.
        metrics: told of its size and changes.
    """

    def __init__(self, run: ServedRun, metrics: Metrics) -> None:
        """Name it; nothing is opened yet."""
        self.name, self.model, self.task = run.name, run.model, run.task
        self.place, self.fusion, self.refusal = run.place, run.fusion, run.refusal
        self.metrics = metrics
        self._pictures = KeptPictures(RunFolder(run.folder).pictures)
        self._opened: OpenedIndex | None = None
        self._earlier: OpenedIndex | None = None
        """One of another space that was replaced: searched until its adapter is replaced too."""
        self._lock = threading.Lock()
        self._epoch: int | None = None
        self._waiting = 0
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix=f"search {run.name}")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"write {run.name}")

    @property
    def is_there(self) -> bool:
        """Whether there is an index to search; one on a server is taken to be there."""
        return is_there(self.place)

    async def search(self, query: Query, space: SpaceId | None) -> list[Hit]:
        """Return the documents that answer a query, best first.

        Args:
            query: with this index's fusion.
            space: that the query's vector is for; None where it has none.

        Raises:
            ServiceError: there is no index, or too much is waiting.
            UsageError: it holds vectors of another space.
        """

        def found() -> list[Hit]:
            with self._open(searched=space) as index:
                if space is not None:
                    check_space(index.space, space, self.name)
                return index.search(query)

        with self.metrics.timed("index"):
            return await self._in(self._readers, found)

    async def state(self) -> str | None:
        """What changes with every change of the index, whoever makes it; None where that cannot be told."""

        def looked() -> str | None:
            if not is_there(self.place):
                return "none"
            with self._open() as index:
                return index.state

        return await self._in(self._readers, looked)

    async def get(self, identifier: str) -> Stored | None:
        """Return a document, if it is there."""

        return await self._read(lambda index: index.get([identifier]).get(identifier))

    async def picture(self, sha256: str) -> bytes:
        """Return what is kept of a picture.

        Raises:
            ServiceError: 404 no document is this picture, or its file is gone.
        """
        if await self.get(picture_id(sha256)) is None:
            raise ServiceError(f"no picture of the index {self.name} is {sha256}", status=404, field="sha256")
        data = await self._in(self._readers, lambda: self._pictures.read(sha256))
        if data is None:
            fix = "Write the pictures again: acclimate index RUN --images"
            raise ServiceError(f"the file of the picture {sha256} is gone", status=404, field="sha256", fix=fix)
        return data

    async def has_pictures(self) -> bool:
        """Whether it holds pictures."""
        return await self._read(lambda index: index.has_pictures())

    def present(self, identifiers: Sequence[str]) -> set[str]:
        """Return those of the ids that documents have; for threads, not for the event loop.

        Raises:
            ServiceError: there is no index.
        """
        with self._open() as index:
            return set(index.get(identifiers))

    @property
    def epoch(self) -> int | None:
        """The number of the last change that was known when it was last looked for; None before that."""
        return self._epoch

    async def page(self, after: str | None, limit: int) -> tuple[list[Stored], int]:
        """Return some documents in the order of their ids, and how many there are in all."""

        return await self._read(lambda index: (list(islice(index.iterate(after), limit)), index.count()))

    async def highlights(self, query: str, texts: Sequence[str]) -> list[list[Span]]:
        """Find the query's words in texts, as the index counts words."""

        return await self._read(lambda index: [highlights(text, query, index.analyser) for text in texts])

    async def summary(self) -> IndexSummary:
        """Say what the index holds.

        Raises:
            ServiceError: there is none.
        """

        def found(index: Index) -> IndexSummary:
            sample = [one.document.metadata for one in first_texts(index, SAMPLE)]
            return IndexSummary(index.info(), index.analyser.language, sample, index.count(PICTURES))

        return await self._read(found)

    async def write(self, documents: Sequence[Document], encode: Encode, space: SpaceId) -> Fed:
        """Write documents, in place of those with the same ids; what has not changed is not encoded again.

        When this returns they are on disk, and every search finds them. They are encoded and written in parts, so that
        a large request takes little more memory than a small one; where one part fails, those before it are stored.

        Args:
            documents: each one piece.
            encode: their vectors; called in the thread that writes.
            space: of these vectors; an index that is not there is made for it.

        Raises:
            ServiceError: 409 another process writes it, 429 too much is waiting. Of an error after some of them were
                written, `found` says how many are stored.
            DataError: a document that no index takes.
        """

        def written() -> Fed:
            done = Fed()
            with self._open(space, documents) as index:
                check_space(index.space, space, self.name)
                for part in parts_of(documents):
                    try:
                        fed = feed(index, [Whole(one.id, (one,)) for one in part], encode)
                    except AcclimateError as error:
                        if done.documents:
                            raise partly_stored(error, done.documents, len(documents)) from error
                        raise
                    for name in Fed.__slots__:
                        setattr(done, name, getattr(done, name) + getattr(fed, name))
            return done

        return await self._in(self._writer, written, writes=True)

    async def write_pictures(self, pictures: Sequence[NewPicture], encode: EncodePictures, space: SpaceId) -> Fed:
        """Write pictures, and keep their bytes; those that the same projection has made are not encoded again.

        Args:
            pictures: each once.
            encode: their vectors; called in the thread that writes.
            space: as of `write`; so are the errors.
        """

        def written() -> Fed:
            with self._open(space, [one.document for one in pictures]) as index:
                check_space(index.space, space, self.name)
                return feed_pictures(index, pictures, self._pictures.keep, encode)

        return await self._in(self._writer, written, writes=True)

    async def delete(self, identifiers: Sequence[str]) -> int:
        """Remove documents and their chunks; return how many of the documents were there."""

        def removed() -> int:
            with self._open() as index:
                found = remove(index, identifiers)
            self._pictures.forget(filter(None, map(sha256_of, identifiers)))
            return found

        return await self._in(self._writer, removed, writes=True)

    async def follow(self, space: SpaceId) -> None:
        """Look for what others have written: the next search would, too, but later.

        Args:
            space: of the run's model: an index of another one that was replaced a while ago is put away.
        """

        def looked() -> None:
            if not is_there(self.place):
                return
            with self._open(searched=space) as index:
                info = index.info()
            self._put_earlier_away(space)
            epoch = int(info.details.get("seq", 0))
            self.metrics.documents.labels(self.name).set(info.documents)
            self.metrics.epoch.labels(self.name).set(epoch)
            self.metrics.lag.labels(self.name).set(epoch - (epoch if self._epoch is None else self._epoch))
            self._epoch = epoch

        await self._in(self._readers, looked)

    def close(self) -> None:
        """Wait for what is being written, and put the index away."""
        self._readers.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)
        for opened in (self._opened, self._earlier):
            if opened is not None:
                opened.index.close()

    async def _read(self, call: Callable[[Index], T]) -> T:
        def called() -> T:
            with self._open() as index:
                return call(index)

        return await self._in(self._readers, called)

    async def _in(self, threads: ThreadPoolExecutor, call: Callable[[], T], *, writes: bool = False) -> T:
        if self._waiting >= WAITING:
            raise ServiceError(f"too many requests wait for the index {self.name}", status=429, retry_after_s=1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, call)
        except StorageError as error:
            if writes and "another acclimate is at work" in error.found:
                raise ServiceError(
                    f"another process writes the index {self.name}",
                    status=409,
                    fix="Send it to the service that writes, and start this one with --read-only.",
                ) from error
            raise
        finally:
            self._waiting -= 1

    @contextmanager
    def _open(
        self, space: SpaceId | None = None, first: Sequence[Document] = (), searched: SpaceId | None = None
    ) -> Iterator[Index]:
        """Give the index; another one where it was replaced on disk (by a refresh, or by `index --reencode`).

        Args:
            space: make one for it, where there is none.
            first: what shall be written into one that is made: they say in which language it is.
            searched: the earlier one is given where it is that which has this space.
        """
        with self._lock:
            inode = inode_of(self.place)
            if self._opened is None or (inode and self._opened.inode != inode):
                self._change(self._found_or_made(space, first))
            assert self._opened is not None
            if searched not in (None, self._opened.index.space) and self._earlier is None and self._replaced(searched):
                self._change(self._found_or_made(None, ()))
            opened = self._opened
            if self._earlier is not None and self._earlier.index.space == searched != opened.index.space:
                opened = self._earlier
            opened.users += 1
        try:
            yield opened.index
        finally:
            with self._lock:
                opened.users -= 1
                if opened.is_replaced:
                    retire(opened)

    def _replaced(self, space: SpaceId | None) -> bool:
        """Whether an index of this space lay beside, whole, and is now in place: a kill came before that was done."""
        return space is not None and is_folder(self.place) and put_in_place(Path(self.place), space)

    def _change(self, fresh: OpenedIndex) -> None:
        """Search another index from now on; one of another space may still be asked for."""
        if self._opened is not None and self._opened.index.space != fresh.index.space:
            retire(self._earlier)
            self._earlier = self._opened
            self._earlier.replaced_at = time.monotonic()
        else:
            retire(self._opened)
        self._opened = fresh

    def _put_earlier_away(self, space: SpaceId) -> None:
        """Close the earlier index where the model has left its space, and no request can be left that has it."""
        with self._lock:
            earlier = self._earlier
            if earlier is None or earlier.index.space == space or time.monotonic() - earlier.replaced_at < EARLIER_S:
                return
            retire(earlier)
            self._earlier = None

    def _found_or_made(self, space: SpaceId | None, first: Sequence[Document]) -> OpenedIndex:
        if is_there(self.place):
            index = open_index(self.place)
        elif space is None:
            raise ServiceError(
                f"the run {self.name} has no index",
                status=404,
                field="index",
                fix="Send documents to PUT /v1/documents, or make it with: acclimate index.",
            )
        else:
            language = language_of(one.text for one in first)
            analyser = Analyser(language, stop_words=language is not None, stemming=language is not None)
            index = open_index(self.place, space, analyser)
        return OpenedIndex(index, inode_of(self.place))
