"""Image files of every kind: made plain, or rejected with the reason, before they cost much."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from acclimate.data.images.pictures import Picture, decode, normalise_picture, thumbnail
from acclimate.data.records import BadRowError
from tests.image_world import encoded, picture


def normalised(data: bytes, side: int = 64, max_pixels: int = 1_000_000) -> Picture:
    return normalise_picture(data, side=side, max_pixels=max_pixels)


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    """Dark at the left, red growing to the right; the upper half greener."""
    red = np.linspace(0, 255, width)[None].repeat(height, 0)
    green = np.where(np.arange(height) < height // 2, 200, 20)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 60)], -1).astype(np.uint8))


def test_a_plain_jpeg_is_kept_byte_for_byte() -> None:
    data = encoded(picture(0, 0))
    found = normalised(data)
    assert found == Picture(data, 40, 40, ())


def test_a_large_image_is_scaled_to_its_shorter_side() -> None:
    found = normalised(encoded(gradient(600, 400)))
    assert (found.width, found.height) == (96, 64)
    assert decode(found.data).size == (96, 64)


def test_a_rotated_photograph_is_upright_and_without_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to the right
    exif[0x010F] = "a camera"
    found = normalised(encoded(gradient(), exif=exif))
    assert (found.width, found.height) == (40, 60) and found.changes == ("rotated",)
    with Image.open(io.BytesIO(found.data)) as kept:
        assert not kept.getexif()
    top, bottom = np.asarray(decode(found.data), float)[[5, -5], 20]
    assert top[0] < bottom[0]  # what was at the left is at the top


def test_metadata_is_dropped_where_nothing_is_turned() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    found = normalised(encoded(gradient(), exif=exif))
    assert found.changes == () and b"a camera" not in found.data


@pytest.mark.parametrize(
    ("image", "kind", "change"),
    [
        (gradient().convert("CMYK"), "JPEG", "CMYK"),
        (Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)), "PNG", "16-bit"),
        (Image.fromarray(np.linspace(-1, 1, 64 * 64).reshape(64, 64).astype(np.float32)), "TIFF", "16-bit"),
        (gradient().convert("RGBA"), "PNG", "transparency"),
    ],
)
def test_other_pixels_become_rgb(image: Image.Image, kind: str, change: str) -> None:
    found = normalised(encoded(image, kind))
    assert found.changes == (change,)
    assert decode(found.data).mode == "RGB"


def test_sixteen_bits_keep_their_brightness() -> None:
    values = np.full((32, 32), 40_000, np.uint16)
    found = decode(normalised(encoded(Image.fromarray(values), "PNG")).data)
    assert abs(int(np.asarray(found).mean()) - 40_000 // 257) <= 1


def test_transparent_parts_are_white() -> None:
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    assert np.asarray(decode(normalised(encoded(clear, "PNG")).data)).min() > 250


def test_palettes_and_grey_are_rgb_too() -> None:
    for image in (gradient().quantize(16), gradient().convert("L"), gradient().convert("1")):
        assert decode(normalised(encoded(image, "PNG")).data).mode == "RGB"


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    found = normalised(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.changes == ("first of several frames",)
    assert np.asarray(decode(found.data))[16, 16, 0] > 200


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to have so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
        (b"this is a text", "no image"),
        (encoded(gradient())[:400], "broken image"),
        (encoded(gradient(), "PNG")[:90], "broken image"),
        (bomb(50_000, 50_000), "too many pixels"),
        (bomb(2_000, 2_000), r"too many pixels \(2,000 x 2,000, at most 1,000,000\)"),
        (encoded(Image.new("RGB", (4, 40))), r"too small \(4 x 40 pixels"),
        (encoded(Image.new("RGB", (900, 20))), "a strip"),
        (encoded(Image.fromarray(np.full((32, 32), np.nan, np.float32)), "TIFF"), "pixels that are no numbers"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_used_is_rejected_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadRowError, match=reason):
        normalised(data)


def test_a_thumbnail_is_small() -> None:
    small = decode(thumbnail(normalised(encoded(gradient(600, 400))).data, 48))
    assert max(small.size) == 48
