"""The bytes of an index's pictures, by their hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from acclimate.errors import StorageError, UsageError
from acclimate.runs.pictures import KeptPictures, media_type
from tests.image_world import encoded, picture

DATA = b"\xff\xd8 a picture"
NAME = hashlib.sha256(DATA).hexdigest()


def test_a_picture_is_kept_once_and_forgotten(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path / "pictures")
    assert kept.read(NAME) is None and not kept.has(NAME)
    kept.keep(NAME, DATA)
    place = tmp_path / "pictures" / NAME[:2] / NAME
    assert place.read_bytes() == kept.read(NAME) == DATA and list(place.parent.iterdir()) == [place]
    before = place.stat().st_mtime_ns
    kept.keep(NAME, DATA)
    assert place.stat().st_mtime_ns == before
    kept.forget([NAME, "0" * 64])
    assert not kept.has(NAME)


@pytest.mark.parametrize(
    "name", ["", "../../settings", "..", NAME.upper(), NAME[:-1], NAME + "0", NAME + "\n", "/" + NAME]
)
def test_nothing_else_is_a_name(name: str, tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path)
    for use in (kept.read, kept.has, lambda one: kept.keep(one, DATA), lambda one: kept.forget([one])):
        with pytest.raises(UsageError, match="is no picture"):
            use(name)
    assert not list(tmp_path.iterdir())


def test_what_is_not_ours_is_seen(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path / "pictures")
    kept.keep(NAME, DATA)
    (tmp_path / "pictures" / ".DS_Store").write_bytes(b"")
    assert kept.objection(kept.folder) == ""
    (tmp_path / "pictures" / "2024").mkdir()
    assert "holds 2024, which acclimate did not write" in kept.objection(kept.folder)
    (tmp_path / "file").write_bytes(b"")
    assert "is a file" in kept.objection(tmp_path / "file")


def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / NAME[:2]).write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be written"):
        KeptPictures(tmp_path).keep(NAME, DATA)


def test_what_a_file_is() -> None:
    assert media_type(encoded(picture(1, 1))) == "image/jpeg"
    assert media_type(encoded(picture(1, 1), "WEBP")) == "image/webp"
