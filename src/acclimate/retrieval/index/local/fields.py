"""Metadata by columns, for filters: made from the store, and kept beside it as of a change, so that the first filter
after opening does not read the metadata of all documents.

Shapes: R row numbers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.core.columns import Column, Columns
from acclimate.retrieval.index.local import checkpoints
from acclimate.retrieval.index.local.store import Change, Store

KIND = "fields"
CODES, VALUES = "codes.npz", "values.json"
THERE = "there"


def current(folder: Path, store: Store) -> Columns:
    """The columns of a store, within a transaction of which it sees one state: a checkpoint, and what came after."""
    columns, seq = Columns(), 0
    if (found := checkpoints.newest(folder, KIND, store.identity, store.seq)) is not None:
        with contextlib.suppress(OSError):  # a writer has just removed it for a newer one
            columns, seq = _read(found.folder), found.seq
    for change in store.changes(seq, store.seq, with_vectors=False):
        note(columns, change)
    return columns


def note(columns: Columns, change: Change) -> None:
    """Put a changed row's metadata in place of what it had."""
    if change.metadata is None:
        columns.set(change.row, None)
    else:
        values = json.loads(change.metadata)
        columns.set(change.row, {name: _value(value) for name, value in values.items()})


def write(columns: Columns, folder: Path) -> Mapping[str, Any]:
    """Write columns into an empty folder; values that no row has any more are left out."""
    codes_R, values = {THERE: columns.there_R}, {}
    for number, (name, column) in enumerate(columns.columns.items()):
        used = np.union1d([0], column.code_R)
        codes_R[str(number)] = np.searchsorted(used, column.code_R).astype(np.int32)
        values[name] = [column.values[code] for code in used[1:]]
    np.savez(folder / CODES, allow_pickle=False, **codes_R)
    (folder / VALUES).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return {}


def _read(folder: Path) -> Columns:
    columns = Columns()
    with np.load(folder / CODES) as codes:
        columns.there_R = codes[THERE]
        for number, (name, values) in enumerate(json.loads((folder / VALUES).read_text(encoding="utf-8")).items()):
            columns.columns[name] = column = Column(0)
            column.code_R = codes[str(number)]
            for value in values:
                column.code(_value(value))
    return columns


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
