"""OpenedIndex: an index that the service has open, used by a number of calls, until another one takes its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from acclimate.retrieval.index.local.store import FILE
from acclimate.retrieval.index.of_run import is_folder
from acclimate.retrieval.index.protocol import Index


@dataclass(slots=True)
class OpenedIndex:
    """An index that is open, and by how many calls it is being used."""

    index: Index
    inode: int
    users: int = 0
    is_replaced: bool = False
    replaced_at: float = 0.0


def retire(opened: OpenedIndex | None) -> None:
    """Close an index that was replaced, once nobody uses it."""
    if opened is not None:
        opened.is_replaced = True
        if not opened.users:
            opened.index.close()


def is_there(place: str) -> bool:
    """Whether there is an index; one on a server is taken to be there."""
    return not is_folder(place) or inode_of(place) != 0


def inode_of(place: str) -> int:
    """What tells one file of documents from another at the same place; 0 where there is none, or it is on a server."""
    if not is_folder(place):
        return 0
    try:
        return (Path(place) / FILE).stat().st_ino
    except OSError:
        return 0
