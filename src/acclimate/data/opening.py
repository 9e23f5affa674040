"""Files as people have them, opened as bytes and as lines: compressed or not, in UTF-8 or another encoding.

Every reader of the user's files comes through here, so that no command reads what another does not.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from acclimate.errors import DataError, MissingExtraError
from acclimate.files import MAX_LINE_BYTES, lines_of, open_input

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""Endings that are taken off before a name says what a file holds: `x.jsonl.gz` is read as `x.jsonl`."""
MAGIC: dict[bytes, str] = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
    b"PK\x05\x06": ".zip",
}
"""First bytes of a compressed file -> its kind; they count more than its name."""
MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks; that of UTF-32 begins with that of UTF-16."""
ENCODINGS = ("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253")
"""What a text that is not UTF-8 may be: what Excel and editors save on Windows, and older files elsewhere. Of two that
are as likely, the first."""
MAX_CHAOS = 0.2
"""charset-normalizer's measure of a text that reads as nonsense; its own default."""
WIDE = ("utf-16", "utf-32", "utf-16-le", "utf-16-be")
SAMPLE_BYTES = 256 * 1024
"""So much text beyond ASCII is enough to tell its encoding."""
VOTES = 16
"""Parts of a text that are looked at by themselves where the whole is in no encoding."""
MIN_BYTES = 4
"""Fewer bytes beyond ASCII are a fault in a text, not an encoding."""
SCAN_BYTES = 64 * 2**20
"""Where a text is ASCII so far, it is called UTF-8; later lines that are not are rejected, and counted."""
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)


def plain_name(path: Path) -> str:
    """Return a file's name without the ending of its compression: `x.jsonl` for `x.jsonl.gz`."""
    return path.stem if path.suffix.lower() in COMPRESSED else path.name


def extension(path: Path) -> str:
    """Return the ending of a file's name in lower case, compression aside: `.jsonl` for `x.JSONL.gz`, or ""."""
    return Path(plain_name(path)).suffix.lower()


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading bytes; one that is compressed (gzip, bzip2, xz, zstd, zip) gives what it holds.

    Raises:
        DataError: it is missing, a folder, empty, an archive of several files; later, at a read: it is damaged.
        MissingExtraError: zstd without the extra [files].
    """
    stream = open_input(path)
    head = stream.read(8)
    stream.seek(0)
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
    if kind == "" or is_office(path):
        return cast(BinaryIO, stream)
    return cast(BinaryIO, io.BufferedReader(_Guarded(_decompressed(path, stream, kind), path), 256 * 1024))


def is_office(path: Path) -> bool:
    """Whether a file is a document or a sheet of an office program: a zip archive that declares its content types."""
    return "[Content_Types].xml" in _zip_names(path) or "mimetype" in _zip_names(path)


def detect_encoding(path: Path) -> str:
    """Tell the encoding of a text file, decompressed if need be: from its mark, else from its lines beyond ASCII.

    Returns:
        "utf-8" where most lines are (a broken line costs that line), else the name of one of `ENCODINGS` or `WIDE`.

    Raises:
        DataError: it is none of these, so most likely no text.
    """
    status = path.stat() if path.exists() else None
    return _encoding(path, (status.st_mtime_ns, status.st_size) if status else (0, 0))


def read_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Every line of a text file as (1-based row, text without its end, what is wrong with it or "").

    Raises:
        DataError: it cannot be opened, is damaged, or is no text.
    """
    encoding = detect_encoding(path)
    with open_text_bytes(path, encoding) as stream:
        yield from lines_of(stream, "utf-8" if encoding in WIDE else encoding)


def read_all(path: Path) -> str:
    """Return a whole text file, decompressed and decoded, its mark left out.

    Raises:
        DataError: as `read_lines`, or a part of it is not in its encoding.
    """
    encoding = detect_encoding(path)
    with open_text_bytes(path, encoding) as stream:
        raw = stream.read()
    try:
        return raw.decode("utf-8" if encoding in WIDE else encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        name = encoding.upper()
        raise DataError(f"{path} is not {name} text (byte {error.start:,})", fix="Save it as UTF-8.") from None


def open_text_bytes(path: Path, encoding: str) -> BinaryIO:
    """Open a text so that its lines end with a line feed, which is one byte: UTF-16 and UTF-32 come as UTF-8, and
    where carriage returns alone end the lines, they come as line feeds."""
    stream = cast(io.BufferedReader, open_bytes(path))
    if encoding in WIDE:
        stream = io.BufferedReader(_Recoded(stream, encoding))
    head = stream.peek()
    if b"\r" in head and b"\n" not in head:
        stream = io.BufferedReader(_LineFeeds(stream))
    return cast(BinaryIO, stream)


def encoding_note(path: Path) -> str:
    """What a user should know of a file's encoding; "" where it is UTF-8."""
    encoding = detect_encoding(path)
    return "" if encoding == "utf-8" else f"{path.name} is not UTF-8: read as {encoding.upper()}, which was detected"


@lru_cache(maxsize=64)
def _encoding(path: Path, _status: tuple[int, int]) -> str:
    with open_bytes(path) as stream:
        head = stream.read(64)
        marked = next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)
        if marked is not None:
            return marked
        if b"\0" in head and len(head) > 3:  # UTF-16 without a mark: ASCII letters beside zeros
            zeros = head[0::2].count(0), head[1::2].count(0)
            if 5 * max(zeros) >= len(head) and min(zeros) == 0:
                return "utf-16-be" if zeros[0] else "utf-16-le"
    good = bad = 0
    sample = bytearray()
    with open_bytes(path) as stream:
        seen = 0
        while len(sample) < SAMPLE_BYTES and seen < SCAN_BYTES and (line := stream.readline(MAX_LINE_BYTES)):
            seen += len(line)
            if line.isascii():
                continue
            sample += line[:SAMPLE_BYTES]
            try:
                line.decode()
                good += 1
            except UnicodeDecodeError as error:
                bad += error.reason != "unexpected end of data" or len(line) < MAX_LINE_BYTES
    if bad <= good or sum(byte > 127 for byte in sample) < MIN_BYTES:
        return "utf-8"
    lines = bytes(sample).splitlines(keepends=True)
    guess = _guess(bytes(sample))
    if guess is None:  # a broken line among them: most of the others still agree
        size = -(-len(lines) // VOTES)
        votes = Counter(_guess(b"".join(lines[at : at + size])) for at in range(0, len(lines), size))
        guess = next((encoding for encoding, _ in votes.most_common() if encoding is not None), None)
    return guess or "utf-8"


def _guess(sample: bytes) -> str | None:
    """The encoding that charset-normalizer finds likeliest, of those that are found in practice."""
    from charset_normalizer import from_bytes  # when it is needed: most files are UTF-8

    found = [
        (match.chaos, -match.coherence, ENCODINGS.index(encoding))
        for match in from_bytes(sample, cp_isolation=list(ENCODINGS), threshold=MAX_CHAOS, enable_fallback=False)
        for encoding in match.could_be_from_charset
    ]
    return ENCODINGS[min(found)[2]] if found else None


def _zip_names(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            if stream.read(2) != b"PK":
                return []
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except DAMAGED:
        return []


def _decompressed(path: Path, stream: Any, kind: str) -> Any:
    openers: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if kind in openers:
        return openers[kind](stream)
    if kind == ".zip":
        return _only_member(path)
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError(f"{path} is compressed by zstd, which", "files") from None
    return zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)


def _only_member(path: Path) -> Any:
    try:
        archive = zipfile.ZipFile(path)
        files = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(files) == 1:
            return archive.open(files[0])
    except DAMAGED as error:
        raise damaged(path, error) from None
    raise DataError(
        f"{path}: an archive of {len(files)} files ({', '.join(files[:5])})",
        possible="an archive of one file",
        fix="Unpack it, and give the folder or one of the files.",
    )


def damaged(path: Path, error: BaseException) -> DataError:
    """The error for a file that breaks off, or is not what its first bytes say."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path} is damaged ({reason})", fix="Get or write the file again.")


class _LineFeeds(io.RawIOBase):
    """A text whose lines end with carriage returns alone (Excel's "CSV (Macintosh)"), with line feeds instead."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Guarded(io.RawIOBase):
    """A decompressing stream whose own errors become ours."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self._path = stream, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except DAMAGED as error:
            raise damaged(self._path, error) from None
        except Exception as error:  # zstandard's error is a plain Exception of its own
            raise damaged(self._path, error) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


BROKEN = "\ud800"
"""Stands for bytes that are no text; being half a character, it makes its line, and no other, invalid UTF-8."""
codecs.register_error("acclimate-broken", lambda error: (BROKEN, cast(UnicodeDecodeError, error).end))


class _Recoded(io.RawIOBase):
    """A text of two or four bytes a character as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream, self._ready = stream, b""
        self._decoder = codecs.getincrementaldecoder(encoding)("acclimate-broken")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            raw = self._stream.read(64 * 1024)
            self._ready = self._decoder.decode(raw, final=not raw).encode("utf-8", "surrogatepass")
            if not raw:
                break
        data, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
