"""The texts of any source: for out-of-domain texts, such as a lexicon's background or `retain_data`."""

from __future__ import annotations

from pathlib import Path

from acclimate.configs import PrepareConfig
from acclimate.data.columns import passage_text
from acclimate.data.dataset import HELD_OUT
from acclimate.data.held_out import HeldOut
from acclimate.data.names import PAIRS
from acclimate.data.opening import read_lines
from acclimate.data.readers import is_hub_id, read_source
from acclimate.data.records import BadRowError, folded, normalise
from acclimate.data.tables import Row, is_plain, read_table
from acclimate.errors import DataError


def texts_of_source(source: str, *, held_out: bool = True) -> list[str]:
    """Read the distinct texts of any source.

    A text file holds one text per line; a table of texts has a column `text`; any other source is read as `prepare`
    reads it, and gives the texts of both sides.

    Args:
        source: a file, a folder, or a hub id.
        held_out: whether to include the queries (or both sentences of labelled pairs) of its dev and test splits.

    Raises:
        DataError: it is missing, empty, of no known form, or holds no usable row.
    """
    path = Path(source)
    if is_hub_id(source) or path.is_dir():
        return _both_sides(source, held_out)
    if is_plain(path):
        lines = (text for _, text, error in read_lines(path) if not error)
    else:
        first = next((row for row in read_table(path, path.name) if isinstance(row, Row)), None)
        if first is None or PAIRS & {str(name).strip().casefold() for name in first.values}:
            return _both_sides(source, held_out)
        lines = (_text(row) for row in read_table(path, path.name) if isinstance(row, Row))
    spelling: dict[str, str] = {}
    for line in lines:
        if text := _normal(line):
            spelling.setdefault(folded(text), text)
    texts = list(spelling.values())
    if not texts:
        raise DataError(f"{path}: no text", fix="Give a file with one text per line, or a column named text.")
    return texts


def _text(row: Row) -> str:
    try:
        return passage_text(row.values) or ""
    except BadRowError:
        return ""


def _normal(text: str) -> str:
    try:
        return normalise(text)
    except BadRowError:
        return ""


def _both_sides(source: str, held_out: bool) -> list[str]:
    raw = read_source(source, PrepareConfig())
    pairs = [text for record in raw.records for text in (record.anchor, record.positive)]
    texts = dict.fromkeys([*raw.corpus.values(), *raw.unnamed, *raw.queries.values(), *pairs])
    if held_out:
        return list(texts)
    held = HeldOut()
    for record in raw.records:
        if record.split in HELD_OUT and raw.kind == "pairs":
            held.add_pairs([(record.anchor, record.positive)])
        elif record.split in HELD_OUT:
            held.add_queries([record.anchor])
    return [text for text in texts if not held.excludes(text, "retained")]
