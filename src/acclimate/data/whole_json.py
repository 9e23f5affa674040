"""One JSON value over a whole file -> rows: arrays, pandas' and others' containers, objects one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from acclimate.data.names import PAIRS, SPLIT_NAMES, TEXTS
from acclimate.data.opening import read_all
from acclimate.errors import DataError

QA = ("queries", "corpus", "relevant_docs")
"""LlamaIndex's `EmbeddingQAFinetuneDataset.save_json`: id -> query, id -> document, query id -> document ids."""

SPACE = re.compile(r"\s*")


def load_json(path: Path) -> Any:
    """Read a file of one JSON value; of several objects one after the other, as `jq` writes them: a list of these.

    Raises:
        DataError: it is no JSON.
    """
    text = read_all(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        several = list(_objects(text))
        if several:
            return several
        what = "not a JSON array" if text.lstrip()[:1] == "[" else "not JSON"
        raise DataError(f"{path}: {what} ({error})", fix="Correct it, or write one object a line.") from None


def is_qa(value: Any) -> bool:
    """Whether a value is what LlamaIndex saves for fine-tuning: queries, corpus, relevant_docs."""
    return isinstance(value, dict) and all(isinstance(value.get(name), dict) for name in QA)


def given_splits(value: Any) -> dict[str, list[Any]]:
    """Split's name, as the file has it -> rows, where an object holds a list of rows for each of several splits."""
    if not isinstance(value, dict):
        return {}
    found = {name: rows for name, rows in value.items() if name.lower() in SPLIT_NAMES and _is_rows(rows)}
    return found if len(found) > 1 else {}


def items_of(value: Any, path: Path) -> Iterator[Any]:
    """The rows in a JSON value, each an object unless it is broken.

    An array's items; the one list of objects in an object (`{"data": [...]}`); what pandas writes with `to_json`
    (columns of cells by index, "split", "table"), or `to_dict` (columns as lists); LlamaIndex's corpus; else the object
    itself.

    Raises:
        DataError: an object holds several lists of objects.
    """
    if isinstance(value, list):
        yield from value
    elif not isinstance(value, dict):
        yield value
    elif is_qa(value):
        yield from ({"_id": key, "text": text} for key, text in value["corpus"].items())
    elif isinstance(value.get("columns"), list) and _is_list_of(value.get("data"), list):
        names = [str(name) for name in value["columns"]]
        yield from (dict(zip(names, row, strict=True)) if len(row) == len(names) else row for row in value["data"])
    elif columns := _columns(value):
        yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    else:
        yield from _contained(value, path)


def _contained(value: Mapping[str, Any], path: Path) -> list[Any]:
    if {str(name).strip().casefold() for name in value} & {*PAIRS, *TEXTS}:
        return [value]  # a row
    lists = [name for name, rows in value.items() if _is_rows(rows)]
    if len(lists) > 1:
        raise DataError(
            f"{path}: an object with several lists of rows ({', '.join(lists[:10])})",
            possible="one list of rows; or lists named train, dev (or validation), test",
            fix="Write the list that is meant into a file of its own.",
        )
    return list(value[lists[0]]) if lists else [value]


def _columns(value: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns of a table that lies there column by column: lists of one length, or cells by the same index."""
    cells = list(value.values())
    if len(cells) > 1 and all(isinstance(column, dict) and column.keys() == cells[0].keys() for column in cells):
        return {name: list(column.values()) for name, column in value.items()}
    if len(cells) > 1 and all(isinstance(column, list) and len(column) == len(cells[0]) > 1 for column in cells):
        return dict(value) if all(_is_cell(cell) for column in cells for cell in column) else {}
    return {}


def _is_cell(value: Any) -> bool:
    """Whether a value stands in a column: text, number, nothing, or a list of these (several positives)."""
    return not isinstance(value, dict) and not (isinstance(value, list) and not all(map(_is_cell, value)))


def _is_rows(value: Any) -> bool:
    return _is_list_of(value, dict)


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, kind) for item in value)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects one after the other; nothing at all if something else is between them."""
    decoder, at, found = json.JSONDecoder(), _past_space(text, 0), []
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        found.append(value)
        at = _past_space(text, at)
    yield from found


def _past_space(text: str, at: int) -> int:
    space = SPACE.match(text, at)
    return at if space is None else space.end()
