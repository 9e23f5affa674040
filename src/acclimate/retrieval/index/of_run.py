"""The index of a run: where it is, whether its space is that of the run's model, how its rankings are fused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from acclimate.core.analyser import Analyser
from acclimate.errors import AcclimateError, StorageError, UsageError
from acclimate.files import iter_jsonl, read_json, write_json, write_jsonl
from acclimate.models.text_encoder import TextEncoder
from acclimate.ownership import check_replaceable, json_object, no_objection
from acclimate.retrieval.answers import Refusal
from acclimate.retrieval.index.beside import bring_back, put_in_place
from acclimate.retrieval.index.opening import open_index
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Fusion, check_space
from acclimate.retrieval.index.reports import FusionChoice
from acclimate.runs.tasks import Task
from acclimate.text_use import SpaceId
from acclimate.types import Rejected

SHOWN_CHARS = 24
OF_FUSION = frozenset(FusionChoice.__annotations__) - {"refusal"}
"""What every record of a fusion has. Python 3.11 does not see in a string that a key is not required."""


class HasSpace(Protocol):
    """What gives vectors of a space: an encoder of texts, or of images into that of the texts."""

    @property
    def space(self) -> SpaceId: ...


def index_place(task: Task) -> str:
    """Return where the index of a run's task is: as the settings say, else in the task's folder."""
    return (task.config.index.index_at or str(task.folder.index)).removeprefix("file://")


def is_folder(place: str) -> bool:
    """Whether the place of an index is a folder, and no address of a server."""
    return "://" not in place


def has_index(task: Task) -> bool:
    """Whether a run's task has an index, or the settings say where one is."""
    return task.config.index.index_at is not None or task.folder.index.is_dir()


@contextmanager
def opened_index(place: str) -> Iterator[Index]:
    """Open an index that is there, whatever its space.

    Raises:
        StorageError: there is none, or it is damaged or out of reach.
    """
    if not _is_there(place):
        raise StorageError(f"{place}: there is no index", fix="Make it with: acclimate index RUN [CORPUS …]")
    with closing(open_index(place)) as index:
        yield index


@contextmanager
def index_for(
    place: str, encoder: HasSpace, run: Path, analyser: Analyser | None = None, *, fix: str | None = None
) -> Iterator[Index]:
    """Open the index that an encoder writes and searches, or make it.

    Args:
        place: folder or address.
        encoder: declares the space.
        run: for messages: whose encoder it is.
        analyser: of an index that is made; None is for one that has to be there.
        fix: what to do about an index of another space, if not to encode it again.

    Raises:
        UsageError: it holds vectors of another space; all that differs is named.
        StorageError: it is not there, damaged, or out of reach.
    """
    if not _is_there(place) and analyser is None:
        raise StorageError(f"{place}: there is no index", fix=f"Make it with: acclimate index {run} [CORPUS …]")
    try:
        index = _of_space(place, encoder.space, analyser)
    except UsageError as error:
        there = _space_of(place)
        if there is None or there == encoder.space:
            raise
        if not (is_folder(place) and put_in_place(Path(place), encoder.space)):
            raise _other_space(place, there, encoder.space, run, fix) from error
        index = _of_space(place, encoder.space, analyser)
    with closing(index):
        yield index


def _is_there(place: str) -> bool:
    """Whether there is an index; one on a server is taken to be there."""
    if is_folder(place):
        bring_back(Path(place))
    return not is_folder(place) or Path(place).is_dir()


def _of_space(place: str, space: SpaceId, analyser: Analyser | None) -> Index:
    index = open_index(place, None if analyser is None else space, analyser)
    try:
        check_space(index.space, space, place)
    except BaseException:
        index.close()
        raise
    return index


def read_fusion(task: Task, space: SpaceId) -> tuple[Fusion, FusionChoice | None]:
    """Return how an index's two rankings become one: as it was chosen for this space, else the default and None.

    Raises:
        StorageError: the record is damaged.
    """
    path = task.folder.fusion
    if not path.exists():
        return Fusion(), None
    choice: Any = read_json(path)
    try:
        if choice["space"] != space.digest:  # before a training
            return Fusion(), None
        fusion = fusion_of(choice)
    except KeyError as missing:
        raise StorageError(
            f"{path} is damaged (no {missing})", fix="Delete it, or run evaluate --index again."
        ) from None
    return fusion, choice


def check_own_files(task: Task) -> None:
    """Make sure that what is written beside an index replaces no file of the user's.

    Raises:
        UsageError: it would.
    """
    check_replaceable(task.folder.fusion, _not_fusion, option="run")
    check_replaceable(task.folder.not_indexed, _not_rejected, option="run")


def check_writable(task: Task, place: str, sources: Sequence[Path]) -> None:
    """Make sure that no file of the user's is replaced, and that nothing is read from where an index is written.

    Raises:
        UsageError: it would be.
    """
    check_own_files(task)
    if is_folder(place):
        check_replaceable(Path(place), no_objection, sources, option="--at")


def write_rejected(task: Task, rejected: Sequence[Rejected]) -> None:
    """Write the rows that were not used, or remove the file of an earlier call."""
    if rejected:
        write_jsonl(task.folder.not_indexed, map(dataclasses.asdict, rejected))
    else:
        task.folder.not_indexed.unlink(missing_ok=True)


def _not_fusion(path: Path) -> str:
    ours = (json_object(path) or {}).keys() >= OF_FUSION
    return "" if ours else f"{path} was not written by acclimate"


def _not_rejected(path: Path) -> str:
    row = next((line.value for line in iter_jsonl(path)), None) if path.is_file() else None
    ours = row is not None and set(row) == {field.name for field in dataclasses.fields(Rejected)}
    return "" if ours else f"{path} was not written by acclimate"


def write_fusion(task: Task, choice: FusionChoice) -> None:
    """Record how the rankings are fused, for `search`."""
    write_json(task.folder.fusion, choice)


def fusion_of(choice: FusionChoice) -> Fusion:
    """The chosen fusion, as a search takes it."""
    return Fusion(choice["constant"], choice["dense_weight"], choice["lexical_weight"], choice["depth"])


def refusal_of(choice: FusionChoice | None) -> Refusal | None:
    """The rule by which questions are refused; None where the dev split has not given one."""
    chosen = None if choice is None else choice.get("refusal")
    if chosen is None or chosen["threshold"] is None:
        return None
    return Refusal(chosen["threshold"], chosen["model"])


def query_model(encoder: TextEncoder) -> str:
    """The hash of the model that encodes queries: of its adapter with its use of texts, else of its weights.

    The service names it so too, as the content hash of what it serves.
    """
    adapter = getattr(encoder, "adapter", None)
    fingerprint: str | None = None if adapter is None else adapter.fingerprint
    return fingerprint or encoder.source.query_sha256 or encoder.source.sha256


def _space_of(place: str) -> SpaceId | None:
    """The space of an index that may not be there."""
    try:
        with closing(open_index(place)) as index:
            return index.space
    except AcclimateError:
        return None


def _other_space(place: str, there: SpaceId, own: SpaceId, run: Path, fix: str | None) -> UsageError:
    """The refusal, with both sides of all that differs, and what can be done."""
    differing = there.differences(own)
    said = "; ".join(
        f"{name} is {_shown(in_index)} in the index and {_shown(of_run)} in {run}"
        for name, (in_index, of_run) in differing.items()
    )
    moved = set(differing) == {"document_adapter"} and own.document_adapter is not None
    why = f"The adapter of {run} changes documents, so it needs vectors of its own. " if moved else ""
    return UsageError(
        f"{place} holds vectors of another space: {said}",
        fix=fix
        or f"{why}Encode what is in it again: acclimate index {run} --reencode; or make another index beside it: "
        f"acclimate index {run} CORPUS --at FOLDER",
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN_CHARS else value[: SHOWN_CHARS // 2] + "…"
    return "none" if value is None else str(value)
