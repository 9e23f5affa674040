"""Whether a source holds documents alone, or pairs: told by names of files and columns, never guessed from texts."""

from __future__ import annotations

from pathlib import Path

from acclimate.configs import PrepareConfig
from acclimate.data.beir import is_beir
from acclimate.data.dataset import is_dataset
from acclimate.data.document_files import READERS
from acclimate.data.hub import is_saved
from acclimate.data.kinds import is_table_name
from acclimate.data.made import is_made
from acclimate.data.names import PAIRS, TEXTS
from acclimate.data.readers import is_hub_id, split_files
from acclimate.data.tables import Row, read_table
from acclimate.errors import DataError

PROSE = tuple(ending for ending in READERS if ending != ".txt")
"""Endings that no table has."""
LOOKED_AT = 20
"""Rows of a table that are looked at."""


def is_documents(source: str, config: PrepareConfig) -> bool:
    """Whether a source holds documents, and no pairs or queries.

    A file or a folder of Markdown, HTML, PDF, Word or text files does; so does a table with a column of texts (see
    `names.TEXTS`) and none of queries, answers or sentences, or a folder of such tables.

    Args:
        source: as `adapt` is given it.
        config: where it names columns, there are pairs.
    """
    path = Path(source)
    if is_hub_id(source) or config.anchor_column is not None or config.columns or not path.exists():
        return False
    if path.is_dir():
        return _is_folder_of_documents(path)
    if path.suffix.lower() in READERS:
        return path.suffix.lower() in PROSE or not _has_columns(path)
    return is_table_name(path) and _has_texts_alone(path)


def _is_folder_of_documents(folder: Path) -> bool:
    if is_dataset(folder) or is_saved(folder) or is_made(folder):
        return False
    if is_beir(folder):
        return not any(folder.glob("queries.*")) and not (folder / "qrels").exists()
    try:
        split_files(folder)
    except DataError:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        if any(path.suffix.lower() in READERS for path in files):
            return True
        tables = [path for path in files if is_table_name(path)]
        return bool(tables) and all(_has_texts_alone(path) for path in tables)
    return False


def _has_texts_alone(path: Path) -> bool:
    """Whether the first rows of a table have a text, and nothing of a pair."""
    names = _names(path)
    return bool(names & set(TEXTS)) and not names & PAIRS


def _has_columns(path: Path) -> bool:
    """Whether a text file is a table of pairs."""
    return bool(_names(path) & PAIRS)


def _names(path: Path) -> set[str]:
    """The names of the columns of a table's first rows; none of a file that is no table."""
    names: set[str] = set()
    try:
        for _, row in zip(range(LOOKED_AT), read_table(path, path.name), strict=False):
            if isinstance(row, Row):
                names |= {str(name).strip().casefold() for name in row.values}
    except DataError:
        return set()
    return names
