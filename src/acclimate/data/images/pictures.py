"""One image file -> an upright RGB picture of bounded size, or the reason why there is none.

What a file claims is checked before it is decoded, so that a few kilobytes cannot ask for gigabytes.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from acclimate.configs.images import MAX_FRAMES
from acclimate.data.records import BadRowError
from acclimate.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL import Image as PillowImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""What is decoded. Others of Pillow's formats hand the file to a program (EPS) or are no photographs."""
KEPT_FORMATS = ("JPEG", "WEBP")
"""In which pictures, and frames of videos, are kept."""
MAX_BYTES = 64 * 1024 * 1024
MIN_SIDE = 8
"""Fewer pixels than this on a side are an icon or a tracking pixel, no picture."""
MAX_ASPECT = 16
"""Longer strips are banners; scaled by their short side they would have millions of pixels."""
QUALITY = 95
"""Quality of the JPEG that is kept where an image had to be changed."""
SIXTEEN_BITS = 257
"""65535 / 255."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it is kept: JPEG bytes, upright, RGB, without metadata (a phone's photographs say where it was); of a
    video some frames, as WebP."""

    data: bytes
    width: int
    height: int
    changes: tuple[str, ...]
    """What was done beside scaling: "rotated", "first of several frames", "CMYK", "16-bit", "transparency"."""


def require_pillow() -> None:
    """Raise a `MissingExtraError` unless Pillow is installed."""
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError("Images", "images")


def normalise_picture(data: bytes, *, side: int, max_pixels: int) -> Picture:
    """Decode an image, make it plain, and scale it down.

    Args:
        data: of the file.
        side: the shorter side of the result has at most this many pixels.
        max_pixels: an image that claims more is not decoded.

    Raises:
        BadRowError: it is broken, no image, too large, too small, or a strip.
    """
    opened = _open(data, max_pixels)
    from PIL import ImageOps

    changes = []
    try:
        plain_jpeg = opened.format == "JPEG" and opened.mode == "RGB" and not opened.info.get("exif")
        if getattr(opened, "is_animated", False) and opened.format != "MPO":
            changes.append("first of several frames")
        if opened.format in ("JPEG", "MPO") and opened.mode in ("RGB", "L"):
            opened.draft("RGB" if opened.mode == "RGB" else "L", (side, side))  # decodes 1/2, 1/4 or 1/8 of the pixels
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        if upright.size != opened.size or _rotated(opened):
            changes.append("rotated")
        image = _rgb(upright, changes)
    except BadRowError:
        raise
    except Exception as error:  # decoders of a dozen formats raise whatever they stumble over
        raise BadRowError(f"broken image ({_said(error)})") from None
    if min(image.size) > side:
        image = scaled(image, side)
    elif plain_jpeg and b"Photoshop" not in data[:4096]:
        return Picture(data, image.width, image.height, tuple(changes))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return Picture(out.getvalue(), image.width, image.height, tuple(changes))


def decode(data: bytes) -> PillowImage.Image:
    """Decode the bytes of a `Picture`: an RGB image, in memory; of several frames the first."""
    return decode_frames(data, 1)[0]


def decode_frames(data: bytes, most: int | None = None) -> list[PillowImage.Image]:
    """Decode the bytes of a `Picture`: one RGB image, or the frames that were drawn from a video.

    Args:
        data: JPEG, or WebP of several frames.
        most: decode so many at most.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=KEPT_FORMATS) as image:
        found = []
        for number in range(min(getattr(image, "n_frames", 1), most or MAX_FRAMES)):
            image.seek(number)
            image.load()
            found.append(image.convert("RGB") if image.mode != "RGB" or image.format != "JPEG" else image)
        return found


def thumbnail(data: bytes, side: int = 96) -> bytes:
    """Make a small JPEG of a `Picture`, for a page."""
    image = decode(data)
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def _open(data: bytes, max_pixels: int) -> Any:
    """Open the file and check what it claims; nothing is decoded yet."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise BadRowError("empty image")
    if len(data) > MAX_BYTES:
        raise BadRowError(f"image file too large ({len(data) / 2**20:.0f} MiB, at most {MAX_BYTES // 2**20})")
    # Pillow warns from 89 million pixels on, and raises from twice as many; our own bound is said in the reason.
    Image.init()
    known = [kind for kind in FORMATS if kind in Image.OPEN]  # a build of Pillow may lack some
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        image = Image.open(io.BytesIO(data), formats=known)
    except Image.DecompressionBombError:
        raise BadRowError(f"too many pixels (more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,})") from None
    except UnidentifiedImageError:
        raise BadRowError(f"no image ({', '.join(known)} are read)") from None
    except Exception as error:  # as in `normalise_picture`
        raise BadRowError(f"broken image ({_said(error)})") from None
    check_shape(*image.size, max_pixels)
    return image


def check_shape(width: int, height: int, max_pixels: int) -> None:
    """Raise a `BadRowError` for pictures that are too large, too small, or strips."""
    if width * height > max_pixels:
        raise BadRowError(f"too many pixels ({width:,} x {height:,}, at most {max_pixels:,})")
    if min(width, height) < MIN_SIDE:
        raise BadRowError(f"too small ({width} x {height} pixels, at least {MIN_SIDE} on a side)")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadRowError(f"a strip ({width} x {height} pixels, at most {MAX_ASPECT} times as long as wide)")


def _rotated(image: Any) -> bool:
    return image.getexif().get(0x0112, 1) not in (0, 1)


def _rgb(image: Any, changes: list[str]) -> Any:
    """The image in RGB; 16 bits become 8, transparent parts become white."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        changes.append("16-bit")
        return Image.fromarray((np.asarray(image, np.uint16) // SIXTEEN_BITS).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        changes.append("16-bit")
        return Image.fromarray(_to_bytes(np.asarray(image, np.float64))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        changes.append("transparency")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "CMYK":
        changes.append("CMYK")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers without a fixed range as 0..255: 16 bits by their range, others from their least to their largest."""
    if not np.isfinite(values).all():
        raise BadRowError("broken image (pixels that are no numbers)")
    low, high = float(values.min()), float(values.max())
    if low >= 0 and 255 < high <= 65535:
        return (values / SIXTEEN_BITS).astype(np.uint8)
    if low >= 0 and high <= 255 and high > 1:
        return values.astype(np.uint8)
    return ((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def scaled(image: Any, side: int) -> Any:
    """Scale an image down to a shorter side of so many pixels."""
    from PIL import Image

    scale = side / min(image.size)
    size = tuple(max(side, round(length * scale)) for length in image.size)
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
