"""Files of plain texts."""

from __future__ import annotations

from pathlib import Path

from acclimate.errors import DataError
from acclimate.files import Line, iter_jsonl, open_input

TEXT_FIELDS = ("text", "sentence", "content")


def read_texts(source: Path) -> list[str]:
    """Read the texts of a JSONL file, or the lines of a text file (an empty line is an empty text, so rows keep their
    places).

    Raises:
        DataError: missing, empty, not UTF-8, or a row without a text.
    """
    if source.suffix == ".jsonl":
        return [_text(source, line) for line in iter_jsonl(source)]
    with open_input(source) as stream:
        try:
            return [raw.decode("utf-8").rstrip("\r\n") for raw in stream]
        except UnicodeDecodeError as error:
            raise DataError(f"{source} is not UTF-8 text ({error.reason})", fix="Save it as UTF-8.") from None


def _text(source: Path, line: Line) -> str:
    value = line.value or {}
    texts = [value[field] for field in TEXT_FIELDS if isinstance(value.get(field), str)]
    if not texts:
        problem = line.error or f"has the fields {', '.join(value) or 'none'}"
        raise DataError(f"{source}, row {line.row}: {problem}", possible="a field " + ", ".join(TEXT_FIELDS))
    return str(texts[0])
