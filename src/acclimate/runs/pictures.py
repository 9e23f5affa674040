"""KeptPictures: the bytes of the pictures that an index holds, each in a file that is named by their sha256."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from acclimate.errors import UsageError
from acclimate.files import open_output, storage_errors
from acclimate.ownership import LEFT_BY_SYSTEMS

JPEG, WEBP = "image/jpeg", "image/webp"
SHA256 = "[0-9a-f]{64}"
_FOLDER = re.compile("[0-9a-f]{2}")


class KeptPictures:
    """Pictures in `FOLDER/<first two hex digits>/<sha256>`; nothing that is there is ever written again.

    Args:
        folder: `RUN/pictures`; it may not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, sha256: str) -> Path:
        """Return where a picture is, if it is kept.

        Raises:
            UsageError: this is no sha256.
        """
        if not re.fullmatch(SHA256, sha256):
            raise UsageError(f"{sha256[:80]!r} is no picture", possible="64 hexadecimal digits, in lower case")
        return self.folder / sha256[:2] / sha256

    def keep(self, sha256: str, data: bytes) -> None:
        """Keep a picture; it is there whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        place = self.place(sha256)
        if not place.is_file():
            with storage_errors(place):
                place.parent.mkdir(parents=True, exist_ok=True)
            with open_output(place) as stream:
                stream.write(data)

    def read(self, sha256: str) -> bytes | None:
        """Return the bytes of a picture; None where it is not kept."""
        try:
            return self.place(sha256).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def has(self, sha256: str) -> bool:
        """Whether a picture is kept."""
        return self.place(sha256).is_file()

    def forget(self, names: Iterable[str]) -> None:
        """Delete pictures, by their sha256; one that is not kept is no error."""
        for sha256 in names:
            place = self.place(sha256)
            with storage_errors(place):
                place.unlink(missing_ok=True)

    @staticmethod
    def objection(folder: Path) -> str:
        """Say why what is at a place may not be ours, see `ownership.check_replaceable`."""
        if not folder.is_dir():
            return f"{folder} is a file, where the pictures of an index are kept"
        foreign = [
            path.name
            for path in sorted(folder.iterdir())
            if path.name not in LEFT_BY_SYSTEMS and not (path.is_dir() and _FOLDER.fullmatch(path.name))
        ]
        return f"{folder} holds {foreign[0]}, which acclimate did not write" if foreign else ""


def media_type(data: bytes) -> str:
    """The media type of a picture that is kept: JPEG, or the frames of a video as WebP."""
    return JPEG if data.startswith(b"\xff\xd8") else WEBP
