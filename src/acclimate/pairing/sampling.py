"""An even sample of rows of a stream, in memory that does not grow with it.

Each row has a number that depends on the seed and its own texts; the rows with the smallest numbers are kept. So every
row has the same chance, equal rows count once, and the sample does not depend on the order or on where a stream was
interrupted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from acclimate.data.split import draw
from acclimate.files import iter_jsonl, read_json, write_json, write_jsonl

ROWS_FILE, STATE_FILE = "rows.jsonl", "state.json"


class Sample:
    """At most `limit` rows of those that are offered.

    Attributes:
        offered: how many rows came, equal ones more than once.
    """

    def __init__(self, limit: int, seed: int, name: str) -> None:
        self.limit, self.seed, self.name = limit, seed, name
        self.offered = 0
        self._rows: dict[int, Any] = {}
        self._largest: list[int] = []
        """A heap of the negated numbers."""

    def offer(self, texts: Iterable[str], row: Any) -> None:
        """Keep the row, or do not.

        Args:
            texts: what makes the row what it is.
            row: what is kept, as JSON can hold it.
        """
        self.offered += 1
        self._put(draw(self.seed, self.name, *texts), row)

    def _put(self, number: int, row: Any) -> None:
        full = len(self._rows) >= self.limit
        if number in self._rows or (full and number > -self._largest[0]):
            return
        self._rows[number] = row
        if full:
            del self._rows[-heapq.heapreplace(self._largest, -number)]
        else:
            heapq.heappush(self._largest, -number)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        """The rows by their numbers: in a random order that is always the same."""
        return (self._rows[number] for number in sorted(self._rows))

    def numbered(self) -> Iterator[tuple[int, Any]]:
        """The rows with their numbers, for `save`."""
        return iter(self._rows.items())


def save(folder: Path, samples: Mapping[str, Sample], more: Mapping[str, Any]) -> None:
    """Write down samples, and how far they have come (`more`); the state is whole or not at all.

    Args:
        folder: is made; holds nothing else.
        samples: by name.
        more: what else a resumed stream needs to know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A new file each time, so that the state never names one that is half written.
    rows = f"{more['documents']}-{ROWS_FILE}"
    write_jsonl(
        folder / rows,
        (
            {"sample": name, "number": number, "row": row}
            for name, it in samples.items()
            for number, row in it.numbered()
        ),
    )
    offered = {name: it.offered for name, it in samples.items()}
    write_json(folder / STATE_FILE, {**more, "rows": rows, "offered": offered})
    for path in folder.glob(f"*-{ROWS_FILE}"):
        if path.name != rows:
            path.unlink()


def restore(folder: Path, samples: Mapping[str, Sample], key: str) -> dict[str, Any]:
    """Fill samples with what `save` wrote for the same `key`; empty where it wrote nothing that fits."""
    if not (folder / STATE_FILE).is_file():
        return {}
    state = read_json(folder / STATE_FILE)
    if state.get("key") != key or not (folder / state["rows"]).is_file():
        return {}
    for line in iter_jsonl(folder / state["rows"]):
        if line.value is not None:
            samples[line.value["sample"]]._put(line.value["number"], line.value["row"])
    for name, count in state["offered"].items():
        samples[name].offered = count
    return state
