"""Writing metrics.jsonl: row by row, cut back on resume; the same to TensorBoard where it is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from acclimate.files import storage_errors


class MetricsLog:
    """The log of a training. Call `cut`, then open it with `with`.

    Args:
        path: the JSONL file; `tensorboard/` beside it gets the same numbers if TensorBoard is installed.
        enabled: False in all processes but the first: nothing is written.
    """

    def __init__(self, path: Path, enabled: bool = True) -> None:
        self.path = path
        self.enabled = enabled
        self._stream: BinaryIO | None = None
        self._board: Any = None
        self._first_step = 0

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes: what was written after the last checkpoint will be written again."""
        if not self.enabled:
            return
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                stream.truncate(min(size, stream.tell()))
            rows = self.path.read_bytes().splitlines()
        self._first_step = json.loads(rows[-1])["step"] + 1 if rows else 0

    def __enter__(self) -> MetricsLog:
        if self.enabled:
            with storage_errors(self.path):
                self._stream = self.path.open("ab")
            self._board = _tensorboard(self.path.parent / "tensorboard", self._first_step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._board is not None:
            self._board.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; it is on its way to the disk when this returns."""
        if self._stream is None:
            return
        with storage_errors(self.path):
            self._stream.write(json.dumps(row).encode() + b"\n")
            self._stream.flush()
        if self._board is not None:
            values = {f"dev/{name}": value for name, value in row["dev"].items()} if "dev" in row else row
            for name, value in values.items():
                self._board.add_scalar(name, value, row["step"])

    def size(self) -> int:
        """Bytes written so far, those of earlier starts included."""
        return self._stream.tell() if self._stream is not None else 0


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step)
