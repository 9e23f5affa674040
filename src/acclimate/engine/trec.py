"""TREC's run files: what every retrieval tool reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from acclimate.files import storage_errors
from acclimate.types import Run


def write_trec(path: Path, run: Run, tag: str, top_k: int) -> None:
    """Write the first `top_k` documents of every query in six columns: query Q0 document rank score tag.

    The columns are split at white space, so white space in an id is written as in a URL (%20).
    """
    with storage_errors(path), path.open("w", encoding="utf-8") as stream:
        stream.writelines(_lines(run, tag, top_k))


def _lines(run: Run, tag: str, top_k: int) -> Iterator[str]:
    for query, found in run.items():
        for rank, (document, score) in enumerate(list(found.items())[:top_k], start=1):
            yield f"{_word(query)} Q0 {_word(document)} {rank} {score:.9g} {tag}\n"


def _word(identifier: str) -> str:
    return re.sub(r"\s", lambda match: quote(match.group()), identifier)
