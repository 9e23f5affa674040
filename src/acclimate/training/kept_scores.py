"""What a long evaluation has measured, each part in a file as soon as it is there: a second start goes on from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from acclimate.evaluation.task_scores import TaskScore
from acclimate.files import hash_text, read_json, storage_errors, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class KeptScores:
    """A folder of parts that were measured.

    Raises:
        StorageError: nothing can be written, or a file is damaged.
    """

    folder: Path
    """Belongs to one evaluation: to its hypernetworks, tasks and settings."""

    def arm(self, name: str, measure: Callable[[], Mapping[str, TaskScore]]) -> dict[str, TaskScore]:
        """Return an arm's score of every task; measured where it is not kept."""
        rows = self._part(f"arm {name}", lambda: {task: asdict(score) for task, score in measure().items()})
        return {task: TaskScore(**row) for task, row in rows.items()}

    def rows(self, name: str, kind: type[Row], make: Callable[[], Sequence[Row]]) -> list[Row]:
        """Return rows of a table, of one dataclass; made where they are not kept."""
        rows = self._part(f"rows {name}", lambda: {"rows": [asdict(row) for row in make()]})["rows"]
        return [kind(**row) for row in rows]

    def _part(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        file = self.folder / f"{hash_text(name)[:16]}.json"
        if not file.is_file():
            made = make()
            with storage_errors(file):
                self.folder.mkdir(parents=True, exist_ok=True)
            write_json(file, made)
        return read_json(file)
