"""Lexicon files, and the background that terms are extracted against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from acclimate.configs import DomainConfig
from acclimate.core.lexicon import fold
from acclimate.counting import counted
from acclimate.data.readers import no_usable_row, source_hash
from acclimate.data.records import BadRowError, folded, normalise
from acclimate.data.tables import Row, Rows, is_plain, read_table, rows_by_line
from acclimate.errors import DataError
from acclimate.progress import say
from acclimate.types import Rejected

Entries: TypeAlias = dict[str, tuple[str, ...]]
"""Term -> its definitions, of which there may be none."""

MAX_TERM_CHARS = 100
"""A longer line is no term: most likely this is the wrong file."""
TERM, DEFINITION = "term", "definition"


def read_lexicon(path: Path) -> Entries:
    """Read a lexicon: a text file with one term per line, or a table with a column `term`, and `definition` if there.

    A repeated term, in whatever case or width, adds its definition to the first. Rows without a usable term are
    counted; their number and the first reason are printed.

    Raises:
        DataError: the file is missing or empty, is a table without a column `term`, or holds no usable term.
    """
    entries: Entries = {}
    spelling: dict[str, str] = {}
    rejected: list[Rejected] = []
    for row in _lexicon_rows(path):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        try:
            term, definition = _entry(row, path)
        except BadRowError as error:
            rejected.append(row.rejected(str(error)))
            continue
        term = spelling.setdefault(fold(term), term)
        known = entries.setdefault(term, ())
        if definition and definition not in known:
            entries[term] = (*known, definition)
    if not entries:
        raise no_usable_row(str(path), rejected)
    if rejected:
        first = rejected[0]
        rows = counted(len(rejected), "rows")
        say(f"{path}: {rows} without a usable term; the first is row {first.row}: {first.reason}")
    return entries


def background_sources(domain: DomainConfig, guard: Sequence[str]) -> tuple[str, ...]:
    """The sources that terms are extracted against: the background, or else the guard data; none for a given
    lexicon."""
    if domain.lexicon is not None:
        return ()
    return (domain.background,) if domain.background is not None else tuple(guard)


def domain_hashes(domain: DomainConfig, guard: Sequence[str]) -> dict[str, str]:
    """Name -> sha256 of what the domain's vocabulary is made from; for an artifact's `inputs.json`.

    Raises:
        DataError: a file is missing or empty.
    """
    hashes = {f"background {source}": source_hash(source) for source in background_sources(domain, guard)}
    if domain.lexicon is not None:
        hashes["lexicon"] = source_hash(domain.lexicon)
    return hashes


def _lexicon_rows(path: Path) -> Rows:
    return rows_by_line(path, path.name, TERM) if is_plain(path) else read_table(path, path.name)


def _entry(row: Row, path: Path) -> tuple[str, str]:
    columns: dict[str, Any] = {name.strip().casefold(): value for name, value in row.values.items()}
    if TERM not in columns:
        raise DataError(
            f"{path} row {row.row}: no column {TERM!r}; columns found: {', '.join(map(repr, row.values))}",
            possible=f"{TERM}, {DEFINITION}?; or a .txt file with one term per line",
            fix="Name the column of the terms so.",
        )
    if not isinstance(columns[TERM], str):
        raise BadRowError(f"not text (term: {columns[TERM]!r})")
    term = folded(normalise(columns[TERM]))
    if not term:
        raise BadRowError("empty (term)")
    if len(term) > MAX_TERM_CHARS:
        raise BadRowError(f"a text, not a term ({len(term)} characters, at most {MAX_TERM_CHARS})")
    definition = columns.get(DEFINITION)
    return term, folded(normalise(definition)) if isinstance(definition, str) else ""
