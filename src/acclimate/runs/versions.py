"""The versions of a run's adapter: folders named by their hash, one of which `RUN/adapter` leads to.

`RUN/adapter` is a relative symbolic link, swapped in one step: whoever opens it finds a whole adapter at any moment.
Where links are not to be had it is a copy, swapped by two renames. `history.json` says who made it lead where it does:
a training moves it on only from where a training had put it, so that a promotion is never undone unasked.
The link is the truth: an entry of the history that it does not follow is of a step that was not finished.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acclimate.errors import StorageError, UsageError
from acclimate.files import (
    discard,
    fsync,
    fsync_tree,
    hash_folder,
    held,
    recover,
    storage_errors,
    work_folder,
)
from acclimate.progress import say
from acclimate.runs.run_folder import FOLDS, RunFolder
from acclimate.runs.shared_files import share_files
from acclimate.runs.version_history import Entry, SetBy, read_history, write_history

NAME_CHARS = 16
"""Hexadecimal digits of the hash in a version's name."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a run's adapter."""

    name: str
    folder: Path
    set_by: SetBy | None
    """Who made `RUN/adapter` lead to it; None: it leads elsewhere."""


def versions(run: RunFolder) -> list[Version]:
    """All versions of a run's adapter, the oldest first; writes only what a kill or an older release left undone."""
    if not (run.adapter.is_symlink() and run.adapter.is_dir()):
        with contextlib.suppress(StorageError):  # where nothing can be written, it is listed as it lies
            restore(run)
    found = _current(run)
    folders = sorted(_folders(run), key=lambda folder: (folder.stat().st_mtime_ns, folder.name))
    listed = [Version(it.name, it, found.by if found and found.version == it.name else None) for it in folders]
    if found and not run.adapter.is_symlink() and found.version not in [it.name for it in folders]:
        listed.append(Version(found.version, run.adapter, found.by if read_history(run) else "training"))
    return listed


def promote(run: RunFolder, name: str) -> Version:
    """Let `RUN/adapter` lead to a version; trainings leave it there from now on.

    Args:
        run: the run.
        name: of the version, or the beginning of it.

    Raises:
        UsageError: no version, or several, are called so.
    """
    with _switching(run):
        names = [folder.name for folder in _folders(run)]
        found = [other for other in names if name and other.startswith(name)]
        if len(found) != 1:
            what = "no version" if not found else "several versions"
            raise UsageError(f"{run.path} has {what} {name!r} of its adapter", possible=", ".join(names) or "none")
        return _set(run, found[0], "promotion")


def before_present(run: RunFolder) -> Version:
    """The version that `rollback` would lead to.

    Raises:
        UsageError: there is none.
    """
    with _switching(run):
        return _version(run, _before_present(run)[-1])


def rollback(run: RunFolder) -> Version:
    """Let `RUN/adapter` lead to the version before the present one, as it did then.

    Raises:
        UsageError: there is none.
    """
    with _switching(run):
        earlier = _before_present(run)
        _lead_to(run, earlier[-1].version)  # first the link: until the history follows, it is of an unfinished step
        write_history(run, earlier)
        return _version(run, earlier[-1])


def _before_present(run: RunFolder) -> list[Entry]:
    """What was in use before, the last one last.

    Raises:
        UsageError: nothing was.
    """
    history = _followed(run)
    earlier = [entry for entry in history[:-1] if (run.adapters / entry.version).is_dir()]
    if not earlier:
        raise UsageError(f"{run.adapter} has led to no other version", fix="Promote one by its name.")
    return earlier


def _version(run: RunFolder, entry: Entry) -> Version:
    return Version(entry.version, run.adapters / entry.version, entry.by)


def add(run: RunFolder, fresh: Path) -> str:
    """Move a finished folder among the versions and return its name; `RUN/adapter` leads where it did."""
    with _switching(run, begins=True):
        return _add(run, fresh)


def take(run: RunFolder, folder: Path) -> str:
    """Copy an adapter's folder among the versions, whole or not at all; return its name. `RUN/adapter` leads where it
    did."""
    with _switching(run):
        name = _name_of(folder)
        if not _is_whole(run.adapters / name):
            _copy(folder, run.adapters / name, run)
        return name


def forget(run: RunFolder, names: Collection[str], *, kept: int) -> list[str]:
    """Delete some versions, but for the one in use and so many that were in use before it; return which are gone."""
    with _switching(run):
        latest = list(dict.fromkeys(entry.version for entry in reversed(_followed(run))))[: kept + 1]
        gone = [name for name in names if name not in latest and (run.adapters / name).is_dir()]
        for name in gone:
            discard(run.adapters / name, run.path / name)
        return gone


def in_use_now(run: RunFolder) -> str | None:
    """The name of the version that `RUN/adapter` leads to; None where there is none."""
    with _switching(run):
        found = _current(run)
        return None if found is None else found.version


def publish(fresh: Path, out: Path) -> None:
    """Make a finished folder a version, and let `out` (`RUN/adapter`) lead to it, unless another one was promoted.

    It is what `artifact` takes as `publish`.
    """
    run = RunFolder(out.parent)
    with _switching(run, begins=True):
        before = _current(run)
        name = _add(run, fresh)
        if before is None or before.by == "training" or before.version == name:
            _set(run, name, before.by if before is not None and before.version == name else "training")
        else:
            _say_kept(run, before, name)


def in_use(adapter: Path) -> Path:
    """Find what `RUN/adapter` leads to, for whoever reads it.

    A kill may have taken it away between two renames: then it is put back; where that cannot be done (a disk for
    reading only, another process at work), it is read where it lies.

    Args:
        adapter: `RUN/adapter`; any other path is returned as it is, and so is this one where nothing is to be found.
    """
    run = RunFolder(adapter.parent)
    if adapter.is_dir() or adapter != run.adapter:
        return adapter
    remains = [_legacy_copy(run), work_folder(run.adapters) / "old"]
    remains += [run.adapters / entry.version for entry in reversed(read_history(run))]
    found = next((folder for folder in remains if folder.is_dir()), None)
    if found is None:
        return adapter
    with contextlib.suppress(StorageError):
        restore(run)
    return adapter if adapter.is_dir() else found


def trained_before(run: RunFolder) -> list[Path]:
    """Where a training's result may be that `RUN/adapter` does not lead to: all versions, once one was promoted."""
    with _switching(run):
        found = _current(run)
        if found is None or found.by == "training":
            return []
        return [folder for folder in _folders(run) if folder.name != found.version]


def restore(run: RunFolder) -> None:
    """Finish what a kill has left half done; move the adapter of an older run, a plain folder, among the versions."""
    with _switching(run):
        pass


def _say_kept(run: RunFolder, current: Entry, name: str) -> None:
    how = "was promoted" if current.by == "promotion" else "was put there by hand"
    say(
        f"{run.adapter} stays what it is: {current.version} {how}. The newly trained one is {run.adapters / name}; "
        f"to use it: acclimate versions {run.path} --promote {name}"
    )


@contextmanager
def _switching(run: RunFolder, *, begins: bool = False) -> Iterator[None]:
    """One process at a time; inside, a whole version is in use, or none.

    Args:
        run: where nothing of an adapter is, it stays as it is, and nothing is locked: it is only looked at.
        begins: the first version is about to come.
    """
    if not begins and not (os.path.lexists(run.adapter) or run.adapters.is_dir() or _legacy_copy(run).is_dir()):
        yield
        return
    work = work_folder(run.adapters)
    with held(work / "lock", run.path), storage_errors(run.adapter):
        _finish(run)
        _adopt(run)
        try:
            yield
        finally:
            if run.adapter.is_dir():
                shutil.rmtree(work, ignore_errors=True)


def _legacy_copy(run: RunFolder) -> Path:
    """Where an artifact without versions keeps the older one while the newer takes its place."""
    return work_folder(run.adapter) / "old"


def _finish(run: RunFolder) -> None:
    """Let `RUN/adapter` be there, if a kill has taken it away."""
    recover(run.adapter)
    put_away = work_folder(run.adapters) / "old"
    if put_away.exists() and not os.path.lexists(run.adapter):
        put_away.rename(run.adapter)
    if not run.adapter.is_dir():  # also a link that leads nowhere
        for entry in reversed(read_history(run)):
            if (run.adapters / entry.version).is_dir():
                _lead_to(run, entry.version)
                return


def _adopt(run: RunFolder) -> None:
    """Make a plain folder at `RUN/adapter` a version, and a link of it; where no link can be, it stays as a copy."""
    if run.adapter.is_symlink() or not run.adapter.is_dir():
        return
    name = _name_of(run.adapter)
    is_copy = _is_whole(run.adapters / name)
    history = read_history(run)
    if name not in [entry.version for entry in history]:
        write_history(run, [*history, Entry(name, "hand" if history else "training")])
    link = _spare_link(run, name)
    if link is None:
        if not is_copy:
            _copy(run.adapter, run.adapters / name, run)
        return
    if is_copy:
        _put_away(run)
    else:
        discard(run.adapters / name, run.path / name)
        run.adapter.rename(run.adapters / name)
    link.replace(run.adapter)
    fsync(run.path)


def _add(run: RunFolder, fresh: Path) -> str:
    name = _name_of(fresh)
    folder = run.adapters / name
    if _is_whole(folder):  # the same content
        shutil.rmtree(fresh)
    else:
        discard(folder, run.path / name)
        run.adapters.mkdir(parents=True, exist_ok=True)
        share_files(fresh, _of_whole_run(run))
        fresh.rename(folder)
        fsync(run.adapters)
    return name


def _of_whole_run(run: RunFolder) -> list[Path]:
    """The adapters of a run and of its folds, by whichever of them this is."""
    whole = RunFolder(run.path.parent.parent) if run.path.parent.name == FOLDS else run
    return [*whole.adapters.glob("*"), *whole.path.glob(f"{FOLDS}/*/{run.adapters.name}/*")]


def _set(run: RunFolder, name: str, by: SetBy) -> Version:
    """First the history, then the link: until the link follows, the entry is of a step that is not finished."""
    history = _followed(run)
    if not history or history[-1] != Entry(name, by):
        write_history(run, [*history, Entry(name, by)])
    _lead_to(run, name)
    return Version(name, run.adapters / name, by)


def _current(run: RunFolder) -> Entry | None:
    history = _followed(run)
    return history[-1] if history else None


def _followed(run: RunFolder) -> list[Entry]:
    """The history up to where `RUN/adapter` leads now; a version that it does not name was set by hand."""
    if not run.adapter.is_dir():
        return []
    name = _version_at(run)
    history = read_history(run)
    for length in range(len(history), 0, -1):
        if history[length - 1].version == name:
            return history[:length]
    return [*history, Entry(name, "hand")]


def _version_at(run: RunFolder) -> str:
    """The name of the version that `RUN/adapter` leads to; of a link to elsewhere, that place."""
    if not run.adapter.is_symlink():
        return _name_of(run.adapter)
    place = run.adapter.resolve()
    return place.name if place.parent == run.adapters.resolve() else str(place)


def _lead_to(run: RunFolder, name: str) -> None:
    """Swap `RUN/adapter`: a link in one step; a copy by two renames, the first of which `_finish` undoes."""
    link = _spare_link(run, name)
    if link is None:
        fresh = work_folder(run.adapters) / "new"
        _copy(run.adapters / name, fresh, run)
        _put_away(run)
        fresh.rename(run.adapter)
    else:
        if run.adapter.is_dir() and not run.adapter.is_symlink():
            _put_away(run)
        link.replace(run.adapter)
    fsync(run.path)


def _spare_link(run: RunFolder, name: str) -> Path | None:
    """A link that leads to a version once it stands at `RUN/adapter`; None where there can be none."""
    link = work_folder(run.adapters) / "link"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(Path(run.adapters.name) / name, target_is_directory=True)
    except (OSError, NotImplementedError):
        return None
    return link


def _put_away(run: RunFolder) -> None:
    """Make room at `RUN/adapter`; what stood there is deleted when the switch is done."""
    old = work_folder(run.adapters) / "old"
    shutil.rmtree(old, ignore_errors=True)
    if run.adapter.is_symlink():
        run.adapter.unlink()
    elif run.adapter.exists():
        run.adapter.rename(old)


def _copy(source: Path, target: Path, run: RunFolder) -> None:
    """Copy a folder, whole or not at all."""
    partial = work_folder(run.adapters) / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    discard(target, run.path / target.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, partial)
    fsync_tree(partial)
    partial.rename(target)


def _folders(run: RunFolder) -> list[Path]:
    return sorted(folder for folder in run.adapters.glob("*") if folder.is_dir())


def _is_whole(folder: Path) -> bool:
    return folder.is_dir() and _name_of(folder) == folder.name


def _name_of(folder: Path) -> str:
    return hash_folder(folder)[:NAME_CHARS]
