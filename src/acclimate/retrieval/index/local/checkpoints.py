"""Checkpoints of what is derived from the store: folders `KIND-SEQ` that are there whole or not at all, with checksums.

A checkpoint never changes once it has its name, so that processes read one while the next is written.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from acclimate.errors import StorageError
from acclimate.files import WORK, fsync, fsync_tree, read_json, storage_errors, write_json
from acclimate.progress import say

MANIFEST = "manifest.json"
VERSION = 2
BLOCK = 1 << 20


class Checkpoint(NamedTuple):
    """A folder that holds the state as of a change."""

    folder: Path
    seq: int
    facts: Mapping[str, Any]
    """What the maker wanted remembered."""


def publish(folder: Path, kind: str, identity: str, seq: int, fill: Callable[[Path], Mapping[str, Any]]) -> Checkpoint:
    """Write a checkpoint, put it into place, and remove the older ones; the caller holds the writer's lock.

    Args:
        folder: of the index.
        kind: what is in it.
        identity: of the store that it was made from.
        seq: the last change that is in it.
        fill: writes the files into a folder and returns facts to remember.
    """
    fresh, place = folder / WORK / kind, folder / f"{kind}-{seq}"
    with storage_errors(folder):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        facts = fill(fresh)
        files = {path.name: [path.stat().st_size, _crc(path)] for path in sorted(fresh.iterdir())}
        write_json(
            fresh / MANIFEST,
            {"version": VERSION, "identity": identity, "seq": seq, "facts": dict(facts), "files": files},
        )
        fsync_tree(fresh)
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
        fsync(folder)
        for older in _places(folder, kind):
            if older != place:
                shutil.rmtree(older, ignore_errors=True)
    return Checkpoint(place, seq, facts)


def newest(folder: Path, kind: str, identity: str, seq: int, beyond: int = -1) -> Checkpoint | None:
    """The newest whole checkpoint in (beyond, seq] of a store; one that cannot be used is said in a line.

    Args:
        folder: of the index.
        kind: what is in it.
        identity: of the store.
        seq: the store's last change, as the caller sees it; a checkpoint may be newer than that.
        beyond: the last change that the caller has already.
    """
    for place in _places(folder, kind):
        if beyond < _seq(place) <= seq:
            try:
                manifest = read_json(place / MANIFEST)
                if (fault := _fault(place, manifest, identity)) is None:
                    return Checkpoint(place, _seq(place), manifest["facts"])
            except (OSError, StorageError, KeyError, TypeError, ValueError):
                fault = "its manifest cannot be read"
            say(f"{place}: {fault}; it is not used, what is missing is made from the documents")
    return None


def latest(folder: Path, kind: str) -> int:
    """The change that the newest checkpoint is named after, whatever its state; -1 where there is none."""
    return next(map(_seq, _places(folder, kind)), -1)


def remove_beyond(folder: Path, kind: str, seq: int) -> None:
    """Remove checkpoints of changes that the store does not have: it was put back to an earlier state."""
    for place in _places(folder, kind):
        if _seq(place) > seq:
            shutil.rmtree(place, ignore_errors=True)


def _fault(place: Path, manifest: Mapping[str, Any], identity: str) -> str | None:
    if manifest["version"] != VERSION:
        return f"it has the version {manifest['version']}, not {VERSION}"
    if manifest["identity"] != identity or manifest["seq"] != _seq(place):
        return "it was made from other documents"
    for name, (size, crc) in manifest["files"].items():
        path = place / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or _crc(path) != crc:
            return f"{name} is damaged"
    return None


def _places(folder: Path, kind: str) -> Iterator[Path]:
    """The checkpoints of a kind, newest first."""
    found = [path for path in folder.iterdir() if re.fullmatch(rf"{kind}-\d+", path.name)]
    return iter(sorted(found, key=_seq, reverse=True))


def _seq(place: Path) -> int:
    return int(place.name.rpartition("-")[2])


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
