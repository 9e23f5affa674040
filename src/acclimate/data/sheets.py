"""Excel sheets -> rows of cells, by openpyxl, which is read only where it is needed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acclimate.data.opening import damaged, open_bytes
from acclimate.errors import DataError, MissingExtraError


def sheet_rows(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Read the first sheet that has rows: (1-based row, cells), rows without a cell left out.

    Columns beyond the header's last one are read where a row has cells there. A cell is a string, or a number or truth
    value as it is; a date is written in ISO 8601, a formula is what Excel last computed.

    Raises:
        DataError: the file is damaged, or has no row.
        MissingExtraError: without the extra [files].
    """
    with _workbook(path) as book:
        for sheet in book.worksheets:
            width = 0
            for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
                values = [_plain(cell) for cell in cells]
                last = max((place for place, value in enumerate(values, start=1) if value != ""), default=0)
                if last:
                    width = width or last
                    yield number, values[: max(width, last)] + [""] * (width - len(values))
            if width:
                return


def other_sheets(path: Path) -> list[str]:
    """Say which sheets are not read, where there are several with rows."""
    with _workbook(path) as book:
        filled = [
            sheet.title for sheet in book.worksheets if any(any(row) for row in sheet.iter_rows(values_only=True))
        ]
    if len(filled) < 2:
        return []
    return [f"{path.name}: the sheet {filled[0]!r} is read; not read: {', '.join(map(repr, filled[1:]))}"]


@contextmanager
def _workbook(path: Path) -> Iterator[Any]:
    try:
        import openpyxl
    except ImportError:
        raise MissingExtraError(f"{path} is an Excel file, which", "files") from None
    with open_bytes(path) as stream:
        content = io.BytesIO(stream.read())
    try:
        book = openpyxl.load_workbook(content, read_only=True, data_only=True)
        yield book
    except DataError:
        raise
    except Exception as error:  # of zipfile, of the XML parser, and of openpyxl: each has its own
        raise damaged(path, error) from None


def _plain(cell: Any) -> Any:
    if cell is None:
        return ""
    if isinstance(cell, str | int | float):
        return cell
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)
