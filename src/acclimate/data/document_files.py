"""The text of one file: plain text, Markdown, HTML, PDF, Word. A damaged file is a row that cannot be used."""

from __future__ import annotations

import logging
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from acclimate.core.lexicon import CJK
from acclimate.data.records import BadRowError
from acclimate.errors import MissingExtraError

EXTRA = "documents"
MAX_FILE_BYTES = 200_000_000
"""Largest file, and largest Word file once it is unpacked."""
MAX_FILE_CHARS = 20_000_000
"""Longest text of a file: a book has one or two million characters."""

_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?\s*([\w-]+)", re.IGNORECASE)
_BLOCKS = (
    "address,article,aside,blockquote,br,dd,details,div,dl,dt,fieldset,figcaption,figure,form,h1,h2,h3,h4,h5,h6,header,"
    "hr,li,ol,p,pre,section,summary,table,tr,ul"
)
_NO_TEXT = "script,style,template,noscript,svg,nav,footer"
"""What is not shown, and what leads elsewhere."""


class FileText(NamedTuple):
    """What a file holds: paragraphs with an empty line between them, and the title that it gives itself."""

    text: str
    title: str = ""


def read_file(path: Path) -> FileText:
    """Read one file of a known form (see `READERS`).

    Raises:
        BadRowError: it is damaged, encrypted, too large, or holds no text.
        MissingExtraError: the package for its form is not installed.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadRowError(f"file too large ({path.stat().st_size:,} bytes, at most {MAX_FILE_BYTES:,})")
        found = READERS[path.suffix.lower()](path)
    except OSError as error:
        raise BadRowError(f"cannot be read ({error.strerror or error})") from None
    text = _paragraphs(found.text)
    if not text:
        raise BadRowError("no text in it" + " (a scan?)" * (path.suffix.lower() == ".pdf"))
    if len(text) > MAX_FILE_CHARS:
        raise BadRowError(f"text too long ({len(text):,} characters, at most {MAX_FILE_CHARS:,})")
    return FileText(text, " ".join(_paragraphs(found.title).split()))


def _plain(path: Path) -> FileText:
    return FileText(_decoded(path.read_bytes(), "utf-8-sig"))


def _html(path: Path) -> FileText:
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise MissingExtraError(f"Reading {path.name}", EXTRA) from None
    raw = path.read_bytes()
    declared = _CHARSET.search(raw[:2048])
    page: Any = LexborHTMLParser(_decoded(raw, declared[1].decode() if declared else "utf-8-sig"))
    title = page.css_first("title")
    named = title.text() if title is not None else ""
    for node in page.css(_NO_TEXT):
        node.decompose()
    body = page.css_first("main") or page.body
    if body is None:
        return FileText("", named)
    for node in body.css("td,th"):
        node.insert_after(" ")
    for node in body.css(_BLOCKS):
        node.insert_before("\n\n")
        node.insert_after("\n\n")
    return FileText(body.text(deep=True), named)


def _pdf(path: Path) -> FileText:
    try:
        import pypdf
    except ImportError:
        raise MissingExtraError(f"Reading {path.name}", EXTRA) from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it says of damaged files goes into our reason
    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise BadRowError("encrypted with a password")
        pages = [page.extract_text() for page in reader.pages]
        facts: Any = reader.metadata or {}
        title = str(facts.get("/Title") or "")
    except (BadRowError, OSError):
        raise
    except Exception as error:  # a damaged file can raise anything there
        raise BadRowError(f"not readable as PDF ({_reason(error)})") from None
    text = "\n".join(pages)
    text = re.sub(rf"(?<=[{CJK}])\n(?=[{CJK}])", "", text)  # a line ends in the middle of a sentence
    return FileText(re.sub(r"(?<=\w)-\n(?=[a-z])", "", text), title)


def _docx(path: Path) -> FileText:
    try:
        import docx
    except ImportError:
        raise MissingExtraError(f"Reading {path.name}", EXTRA) from None
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > MAX_FILE_BYTES:
            raise BadRowError(f"file too large ({size:,} bytes unpacked, at most {MAX_FILE_BYTES:,})")
        document = docx.Document(str(path))
        return FileText("\n\n".join(_docx_blocks(document)), document.core_properties.title or "")
    except (BadRowError, OSError):
        raise
    except Exception as error:  # a damaged file can raise anything there
        raise BadRowError(f"not readable as Word document ({_reason(error)})") from None


def _docx_blocks(container: Any) -> Iterator[str]:
    """The paragraphs, and the rows of tables, in the document's order."""
    for block in container.iter_inner_content():
        if hasattr(block, "rows"):
            for row in block.rows:
                yield " ".join(dict.fromkeys(cell.text for cell in row.cells))  # a merged cell comes several times
        else:
            yield block.text


READERS: dict[str, Callable[[Path], FileText]] = {
    ".txt": _plain,
    ".md": _plain,
    ".markdown": _plain,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
}
"""Extension -> how the text is read."""


def _decoded(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except LookupError:
        raise BadRowError(f"unknown encoding {encoding!r}") from None
    except UnicodeDecodeError as error:
        raise BadRowError(f"not {encoding.removesuffix('-sig').upper()} (byte {error.start})") from None


def _paragraphs(text: str) -> str:
    """NFC; within a line every run of white space one space; no more than one empty line between two others."""
    try:
        text.encode()
    except UnicodeEncodeError:  # of a PDF
        text = text.encode("utf-8", "replace").decode()
    lines = (" ".join(line.split()) for line in unicodedata.normalize("NFC", text).replace("\0", " ").split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:120]
