"""TREC's run files, which every retrieval tool reads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from acclimate.data.opening import read_lines
from acclimate.errors import DataError
from acclimate.files import open_output
from acclimate.types import Run

FORM = "six columns: query Q0 document rank score tag"


def write_trec(path: Path, run: Run, tag: str, top_k: int) -> None:
    """Write the first `top_k` documents of every query in six columns: query Q0 document rank score tag.

    The file is written whole or not at all. The columns are split at white space, so white space in an id is written
    as in a URL (%20).
    """
    with open_output(path) as stream:
        stream.writelines(line.encode() for line in _lines(run, tag, top_k))


def read_trec(path: Path, queries: Iterable[str], documents: Iterable[str]) -> Run:
    """Read a run file: per query its documents, by score descending, then document id ascending.

    Args:
        path: six columns (query Q0 document rank score tag).
        queries: all known ids, needed to undo the spelling of white space as in a URL.
        documents: all known ids.

    Raises:
        DataError: the file is missing or empty, or a line (which is named) has another form or an unknown id.
    """
    known = ({_word(query): query for query in queries}, {_word(document): document for document in documents})
    by_query: dict[str, dict[str, float]] = {}
    for row, text, error in read_lines(path):
        columns = text.split()
        if not columns and not error:
            continue
        try:
            query, document = known[0][columns[0]], known[1][columns[2]]
            score = float(columns[4])
            if math.isnan(score):
                raise ValueError  # it has no place in an order
            by_query.setdefault(query, {})[document] = score
        except (IndexError, ValueError):
            raise DataError(f"{path}, line {row}: {error or text[:80]!r}", possible=FORM) from None
        except KeyError as unknown:
            raise DataError(f"{path}, line {row}: no query or document has the id {unknown}") from None
    return {
        query: dict(sorted(scores.items(), key=lambda entry: (-entry[1], entry[0])))
        for query, scores in by_query.items()
    }


def _lines(run: Run, tag: str, top_k: int) -> Iterator[str]:
    for query, scores in run.items():
        for rank, (document, score) in enumerate(list(scores.items())[:top_k], start=1):
            yield f"{_word(query)} Q0 {_word(document)} {rank} {score:.9g} {tag}\n"


def _word(identifier: str) -> str:
    return re.sub(r"\s", lambda match: quote(match.group()), identifier)
