"""Who wrote a folder or a file, and whether it may be replaced: what is not provably ours stays where it is.

A folder of ours holds `MARKER_FILE`: the format's name and version, the step and the command that wrote it, its files.
A file of ours says so itself, each format in its own way (`runs/records.py`).
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from acclimate.errors import UsageError

FORMAT, VERSION = "acclimate", 1
MARKER_FILE = ".written-by-acclimate.json"
CACHE_TAG = "CACHEDIR.TAG"
TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Work in progress and caches of acclimate, format 1.\n"
"""https://bford.info/cachedir/: tools for backups leave such a folder out."""
LEFT_BY_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that a file browser leaves in a folder that was looked at."""

Objection: TypeAlias = Callable[[Path], str]
"""Says why what is at a path is not provably ours; "" where it is."""

_command: ContextVar[str] = ContextVar("command", default="")


@contextmanager
def commanded(*words: str, by: str = "") -> Iterator[None]:
    """While this is open, what is written is recorded as written by this command line, or by `by` where none is open.

    Args:
        words: of the command line, the program's name first.
        by: how a call from Python is called.
    """
    token = _command.set(shlex.join(words) if words else _command.get() or by)
    try:
        yield
    finally:
        _command.reset(token)


def command() -> str:
    """The command that is being carried out; "" where nobody has said."""
    return _command.get()


def called(verb: str, *names: object, **settings: object) -> str:
    """A call of one of our functions as it is typed, without the settings that are not given and whole configs."""
    given = [repr(str(name)) for name in names if name is not None]
    for name, value in settings.items():
        if value is not None and not is_dataclass(value):
            given.append(f"{name}={(str(value) if isinstance(value, Path) else value)!r}")
    return f"acclimate.{verb}({', '.join(given)})"


def mark(folder: Path, kind: str) -> None:
    """Write the marker into a finished folder: these files, and no others, are ours."""
    found = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "command": command(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": sorted(_files(folder)),
    }
    (folder / MARKER_FILE).write_text(
        json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8", "backslashreplace"
    )


def marker(folder: Path) -> dict[str, Any] | None:
    """What the marker of a folder says; None where there is none of ours."""
    found = json_object(folder / MARKER_FILE)
    return found if found and found.get("format") == FORMAT and isinstance(found.get("files"), list) else None


def json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def check_replaceable(
    out: Path, objection: Objection, reads: Iterable[str | Path] = (), *, option: str = "--out"
) -> None:
    """Make sure that nothing is lost when `out` is written: it is absent, empty, or provably ours.

    Args:
        out: the folder or file to be written.
        objection: how what is there proves to be ours.
        reads: files and folders that are read for it; names that lead to none are left out.
        option: by which the user may name another place.

    Raises:
        UsageError: something at `out` is not ours, or an input lies in it, or it lies in an input.
    """
    for name in reads:
        path = Path(name).expanduser()
        if path.exists() and (why := _overlap(out, path)):
            raise UsageError(why, fix=f"Choose another {option}, or move the input.")
    if not os.path.lexists(out) or _is_empty(out):
        return
    if why := objection(out):
        raise UsageError(f"{why}, so it is not replaced", fix=f"Choose another {option}, or move it away.")


def no_objection(out: Path) -> str:  # noqa: ARG001
    """Object to nothing: whoever asks has said that `out` may be replaced, or replaces nothing."""
    return ""


def written_by(kind: str) -> Objection:
    """The objection to replacing a folder, unless a step of this kind wrote it and nothing was added to it since.

    A release before had no marker: its folder is known by three files, and is put aside by `is_listed`, not deleted.
    """

    def objection(out: Path) -> str:
        if not out.is_dir():
            return f"{out} is a file, where a folder is to be written"
        found = marker(out)
        if found is None:
            parts = [json_object(out / name) for name in ("settings.json", "inputs.json", "report.json")]
            timings = (parts[2] or {}).get("timings")
            if None not in parts and isinstance(timings, dict) and f"{kind}_s" in timings:
                return ""
            return f"{out} is a folder that acclimate did not write"
        if found.get("kind") != kind:
            return f"{out} holds what another step wrote ({found.get('kind')}, not {kind})"
        if foreign := sorted(_files(out) - set(found["files"])):
            return f"{out} holds {foreign[0]}, which acclimate did not write"
        return ""

    return objection


def is_listed(folder: Path) -> bool:
    """Whether a folder holds only what its marker names: then, and only then, it may be deleted."""
    found = marker(folder)
    return found is not None and _files(folder) <= set(found["files"])


def claim_work(work: Path) -> None:
    """Make a folder for work in progress, or make sure that the one there is ours: what lies in it is deleted freely.

    Raises:
        UsageError: it is not ours.
        OSError: it cannot be written.
    """
    tag = work / CACHE_TAG
    if tag.is_file() and b"acclimate" in tag.read_bytes():
        return
    if work.is_dir() and any(path.name != CACHE_TAG for path in work.iterdir()):
        raise UsageError(
            f"{work} is a folder that acclimate did not write, and work in progress has to lie there",
            fix="Choose another --out, or move it away.",
        )
    work.mkdir(parents=True, exist_ok=True)
    tag.write_bytes(TAG)


def _overlap(out: Path, read: Path) -> str:
    """What is wrong with reading one and writing the other; "" where they lie apart."""
    for place, other in ((out.resolve(), read.resolve()), (_unfollowed(out), _unfollowed(read))):
        if other == place:
            return f"{out} is read, and would be replaced"
        if place in other.parents:
            return f"{read}, which is read, lies inside {out}, which would be replaced"
        if other in place.parents:
            return f"{out}, which is to be written, lies inside {read}, which is read"
    return ""


def _unfollowed(path: Path) -> Path:
    """The place of a path itself, where it is a link."""
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def _is_empty(path: Path) -> bool:
    if path.is_dir():
        return not any(path.iterdir())
    return path.is_file() and not path.stat().st_size


def _files(folder: Path) -> set[str]:
    """Everything in a folder that could be lost with it: files, and links, to folders too."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path.name not in LEFT_BY_SYSTEMS and path.name != MARKER_FILE
    }
