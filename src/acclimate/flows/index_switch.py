"""A version of an adapter that changes documents, and the index that has to go with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from acclimate.configs import RunConfig
from acclimate.errors import UsageError
from acclimate.progress import say
from acclimate.retrieval.index.beside import built_beside
from acclimate.retrieval.index.of_run import has_index, index_place, is_folder, opened_index
from acclimate.runs.opening import load_current
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task, tasks_of


def only_task(folder: RunFolder, config: RunConfig) -> Task:
    """The task of a run whose feedback is learned from.

    Raises:
        UsageError: it has several, or labelled pairs.
    """
    tasks = tasks_of(folder.path, replace(config, task=None))
    if len(tasks) > 1:
        names = ", ".join(str(task.name) for task in tasks)
        raise UsageError(
            f"{folder.path} has several tasks ({names}) and one adapter: feedback of one would change the others",
            possible="a run with one data set",
            fix="Give each data set a run of its own, and serve them together: acclimate serve RUN RUN …",
        )
    if tasks[0].kind == "pairs":
        raise UsageError(
            f"{folder.path} holds labelled pairs: nothing is searched, so nobody can mark what a search has shown",
            possible="a run with documents to search",
            fix="Add the new pairs to its data, and train it again.",
        )
    return tasks[0]


def check_can_move(task: Task) -> None:
    """Make sure that an adapter that changes documents can be replaced together with its index.

    Raises:
        UsageError: the index is on a server.
    """
    place = index_place(task)
    if has_index(task) and not is_folder(place):
        raise UsageError(
            f"the adapter of {task.folder.path} changes documents too, and its index, {place}, is on a server: the new "
            "vectors cannot be built beside it and come into use together with the adapter",
            possible="an adapter of queries only, or an index in a folder",
            fix=f"Train one: acclimate train {task.folder.path} --sides query",
        )


@contextmanager
def index_of_version(task: Task, version: str) -> Iterator[Callable[[], None]]:
    """Give what puts the index of a version in the place of the present one; nothing where both have one space.

    The new index is whole when this gives it; the old one is searched until then, and kept for the way back. Where a
    kill comes after the version is in use and before its index is, whoever needs the index next puts it in place.

    Args:
        task: of the run.
        version: among the run's.

    Raises:
        StorageError: another process writes the index.
    """
    place = index_place(task)
    if not (has_index(task) and is_folder(place)):
        yield lambda: None
        return
    folder = task.folder.adapters / version
    encoder = load_current(folder, task.config.model, **task.config.loading)
    with opened_index(place) as index:
        is_of_it = index.space == encoder.space
    if is_of_it:
        yield lambda: None
        return
    say(f"{version} changes documents: an index of its own is built beside {place}, which is searched until then")
    with built_beside(Path(place), encoder, keep=True) as built:
        say(f"{built.documents:,} documents are in it, {built.encoded:,} of them encoded now")
        yield built.publish
