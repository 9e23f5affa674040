"""The texts of any source: for out-of-domain texts, such as a lexicon's background or `retain_data`."""

from __future__ import annotations

from pathlib import Path

from acclimate.configs import PrepareConfig
from acclimate.data.dataset import HELD_OUT
from acclimate.data.held_out import HeldOut
from acclimate.data.readers import is_hub_id, read_source
from acclimate.data.tables import Row, is_plain, read_table
from acclimate.errors import DataError
from acclimate.files import iter_lines


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
        lines = (text for _, text, error in iter_lines(path) if not error)
    else:
        first = next((row for row in read_table(path, path.name) if isinstance(row, Row)), None)
        if first is None or "text" not in first.values:
            return _both_sides(source, held_out)
        lines = (str(row.values.get("text") or "") for row in read_table(path, path.name) if isinstance(row, Row))
    texts = list(dict.fromkeys(text for line in lines if (text := " ".join(line.split()))))
    if not texts:
        raise DataError(f"{path}: no text", fix="Give a file with one text per line, or a column named text.")
    return texts


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
