"""Plain files: JSON, JSONL, hashes, and folders that are there whole or not at all. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from acclimate import processes
from acclimate.errors import AcclimateError, DataError, StorageError
from acclimate.ownership import MARKER_FILE, check_replaceable, claim_work, is_listed, mark, written_by
from acclimate.progress import say

CONFIG_FILE = "settings.json"
"""Not config.json: in a folder with a model that is transformers' name for the architecture."""
REPORT_FILE = "report.json"
INPUTS_FILE = "inputs.json"
WORK = ".work"
"""Folder of work in progress, beside what the work is for."""
PARTIAL = "acclimate-partial"
"""How the name of a file that is being written ends: a name that no file of the user's has."""
MAY_NOT = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says where something may not be written."""
MAX_LINE_BYTES = 8 * 1024 * 1024
"""A line longer than this is a broken file (a missing newline), not a document."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a JSONL file: its 1-based row, and either the object or the reason why there is none."""

    row: int
    value: dict[str, Any] | None
    error: str = ""
    text: str = ""


def iter_jsonl(path: Path) -> Iterator[Line]:
    """Every non-blank line of a JSONL file; a broken line costs that line only, and says why.

    Raises:
        DataError: the file cannot be opened.
    """
    yield from parse_jsonl(iter_lines(path))


def iter_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Every line of a text file of ours as (1-based row, text without its end, what is wrong with it or "").

    Raises:
        DataError: the file cannot be opened.
    """
    with open_input(path) as stream:
        yield from lines_of(stream)


def lines_of(stream: BinaryIO, encoding: str = "utf-8") -> Iterator[tuple[int, str, str]]:
    """Every line of an open file, as `iter_lines`; a line that is too long, or not in the encoding, costs that line.

    Args:
        stream: of bytes; a line ends with a line feed.
        encoding: of the lines; in it a line feed is one byte.
    """
    row = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        row += 1
        if len(raw) > MAX_LINE_BYTES:
            while not raw.endswith(b"\n") and (raw := stream.readline(MAX_LINE_BYTES)):
                pass
            yield row, "", f"longer than {MAX_LINE_BYTES // 2**20} MiB in one line"
            continue
        try:
            text = raw.decode("utf-8-sig" if row == 1 and encoding == "utf-8" else encoding)
        except UnicodeDecodeError as error:
            yield row, "", f"not {encoding.upper()} (byte {error.start})"
        else:
            yield row, text.rstrip("\r\n"), ""


def parse_jsonl(lines: Iterable[tuple[int, str, str]]) -> Iterator[Line]:
    """Every non-blank line, of `iter_lines` or `lines_of`, as a JSON object or the reason why it is none."""
    for row, text, error in lines:
        if error:
            yield Line(row, None, error)
        elif text.strip():
            yield _parse_line(row, text.strip())


def _parse_line(row: int, text: str) -> Line:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        return Line(row, None, f"not JSON ({error})", text[:200])
    if not isinstance(value, dict):
        return Line(row, None, f"a JSON {type(value).__name__}, not an object", text[:200])
    if "\\u" in text and not _is_unicode(value):
        return Line(row, None, "half of a surrogate pair, which is no text", text[:200])
    return Line(row, value)


def _is_unicode(value: object) -> bool:
    """Whether every string in a JSON value can be written as UTF-8; an escape can smuggle in half a character."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def open_input(path: Path) -> Any:
    """Open for reading bytes, with our errors for a file that is missing, a folder, unreadable or empty."""
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, a file was expected")
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty", fix="Give a file with at least one row.")
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no such file", fix="Check the path.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSONL (UTF-8, no escapes for non-ASCII); returns how many."""
    count = 0
    with storage_errors(path), path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        StorageError: the file is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(f"{path} is missing", fix="Run the stage that writes it again.") from None
    except ValueError as error:
        raise StorageError(f"{path} is damaged ({error})", fix="Run the stage that writes it again.") from None
    if not isinstance(value, dict):
        raise StorageError(f"{path} holds no JSON object", fix="Run the stage that writes it again.")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with open_output(path) as stream:
        stream.write(text.encode())


@contextlib.contextmanager
def open_output(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream of bytes that becomes the file at `path` whole or not at all: a neighbour, fsync, rename."""
    partial = path.with_name(f".{path.name}.{PARTIAL}")
    with storage_errors(path):
        try:
            with partial.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors while writing `path` into one of ours."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from None


def storage_error(path: Path, error: OSError) -> AcclimateError:
    """Our error for an `OSError` met while writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{path}: no space left on the disk", fix="Free some space and start again; it goes on.")
    if error.errno in MAY_NOT:
        return StorageError(
            f"{path} cannot be written (permission denied)", fix="Choose another place, or work on a copy."
        )
    return StorageError(f"{path} cannot be written ({error.strerror or error})")


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_text(*parts: str) -> str:
    """sha256 over parts, as hex; the parts' borders count."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def hash_folder(folder: Path) -> str:
    """sha256 over the names and bytes of an artifact's files; what differs from time to time, its report (timings) and
    its marker (who wrote it, and when), is left out."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    counted = [name for name in names if name not in (REPORT_FILE, MARKER_FILE)]
    return hash_text(*(f"{name}\0{hash_file(folder / name)}" for name in counted))


def hash_config(config: Mapping[str, Any]) -> str:
    """sha256 of a config's values, whatever the order of its keys."""
    return hash_text(json.dumps(config, sort_keys=True, ensure_ascii=False))


def is_writable(folder: Path) -> bool:
    """Whether something can be written in a folder, and in what is in progress there."""
    work = folder / WORK
    return all(os.access(place, os.W_OK | os.X_OK) for place in (folder, work) if place.is_dir())


def work_folder(out: Path) -> Path:
    """Where the stage that writes `out` keeps its work in progress: `RUN/.work/<name>`."""
    return out.parent / WORK / out.name


@contextlib.contextmanager
def artifact(
    out: Path,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    kind: str = "artifact",
    publish: Callable[[Path, Path], None] | None = None,
) -> Iterator[Path]:
    """Yield a fresh folder to write into; on success it becomes `out`, fsynced and renamed, else nothing changes.

    Writes `settings.json`, `inputs.json` and a marker beside what the caller writes. An older artifact at `out` stays
    untouched until the new one is complete.

    Args:
        out: the folder that shall be there in the end.
        config: every effective value of the stage.
        inputs: name -> hash of what the stage read.
        kind: which step writes it; the artifact of another one is not replaced.
        publish: puts the finished folder (first argument) where it can be found at `out`; `replace_folder` if None.

    Raises:
        StorageError: another process is writing it, or it cannot be written.
        UsageError: what is at `out` is not ours.
    """
    fresh = work_folder(out) / "new"
    with held(work_folder(out) / "lock", out), storage_errors(out):
        recover(out)
        if publish is None:
            check_replaceable(out, written_by(kind))
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        write_json(fresh / CONFIG_FILE, config)
        write_json(fresh / INPUTS_FILE, inputs)
        mark(fresh, kind)
        fsync_tree(fresh)
        if publish is None:  # once more: much may have been put there while it was made
            check_replaceable(out, written_by(kind))
        (publish or replace_folder)(fresh, out)
        shutil.rmtree(work_folder(out), ignore_errors=True)


def replace_folder(fresh: Path, out: Path, is_ours: Callable[[Path], bool] = is_listed) -> None:
    """Let `fresh` be `out`; a kill between the two renames is undone by `recover(out)`.

    Args:
        fresh: the new folder.
        out: where it shall be.
        is_ours: whether all that is in the older folder may be deleted.
    """
    old = work_folder(out) / "old"
    discard(old, out, is_ours)
    if out.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        out.rename(old)
    fresh.rename(out)
    fsync(out.parent)
    discard(old, out, is_ours)


def discard(folder: Path, place: Path, is_ours: Callable[[Path], bool] = is_listed) -> None:
    """Delete a folder if all that is in it is ours; else put it beside `place`, where it was, and say so."""
    if not folder.is_dir() or folder.is_symlink():
        folder.unlink(missing_ok=True)
    elif is_ours(folder) or not any(folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        names = (place.with_name(f"{place.name}.before{number or ''}") for number in itertools.count())
        aside = next(name for name in names if not os.path.lexists(name))
        folder.rename(aside)
        say(f"what was at {place} is now {aside}: nothing in it says that all of it may be deleted")


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's folder (made if need be) for this process alone; of several that share a run, the first holds it.

    Raises:
        StorageError: another process is at work in it, or it cannot be written.
    """
    if not processes.is_main():
        processes.barrier()
        yield
        return
    with held(run / WORK / "lock", run):
        processes.barrier()
        yield


@contextlib.contextmanager
def held(lock: Path, place: Path) -> Iterator[None]:
    """Hold a lock file, which says that this process alone is at work in `place`.

    Raises:
        StorageError: another process holds it, or it cannot be written.
    """
    with storage_errors(place):
        claim_work(next(folder for folder in lock.parents if folder.name == WORK))
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"another acclimate is at work in {place}", fix="Wait until it is done, or choose another --out."
            ) from None
        yield


def recover(out: Path) -> None:
    """Undo a kill between the two renames of `artifact`: the older artifact comes back."""
    old = work_folder(out) / "old"
    if old.exists() and not out.exists():
        old.rename(out)


def fsync_tree(folder: Path) -> None:
    """Make a folder, and all that is in it, survive a power cut."""
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


def fsync(path: Path) -> None:
    """Make a written file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
