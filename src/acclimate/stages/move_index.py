"""`index RUN --to`: an index over to another backend, with the vectors that it has."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig
from acclimate.errors import UsageError
from acclimate.retrieval.index.moving import compare, move
from acclimate.retrieval.index.of_run import index_place, opened_index
from acclimate.retrieval.index.opening import backend_of
from acclimate.runs.tasks import one_task


def move_index(run: Path, to: str, config: RunConfig) -> dict[str, Any]:
    """Move a run's index over: its documents and vectors are copied, and searched there when all of them are.

    After an interruption the same call goes on. The index that was moved from is left as it is.

    Args:
        run: the run's folder.
        to: a folder, or the address of a server: qdrant://host:6333/collection, postgresql://host/database?table=name.
        config: `index_at`: the index to be moved, if it is not the run's own folder.

    Returns:
        {"place", "documents", "written" (the rest was there from an earlier start), "sampled" documents whose
        neighbours were compared, "recall" of them, "replaces" (what was searched at this place before, which is kept,
        or None), "timings"}.

    Raises:
        UsageError: a move to itself; another space there.
        StorageError: there is no index, or a server does not answer; what came over is not what was moved.
    """
    started = time.monotonic()
    place = index_place(one_task(run, config))
    if to.rstrip("/") == place.rstrip("/"):
        raise UsageError(f"the index is at {to} already", fix="Give another folder or address.")
    with opened_index(place) as source:
        target, publish = backend_of(to).target(to, source.space, source.analyser)
        with closing(target):
            moved = move(source, target, label="move")
            agreement = compare(source, target, moved.sample)
            replaced = publish()
            shown = target.info().place
    return {
        "place": shown,
        "documents": moved.documents,
        "written": moved.written,
        "sampled": agreement.sampled,
        "recall": agreement.recall,
        "replaces": replaced,
        "timings": {"move_s": round(time.monotonic() - started, 3)},
    }
