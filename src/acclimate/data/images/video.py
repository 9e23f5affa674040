"""A video -> a `Picture` of several frames, drawn evenly over its length; decoded by PyAV."""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

from acclimate.configs import ImagesConfig
from acclimate.data.images.pictures import QUALITY, Picture, check_shape, normalise_picture, scaled
from acclimate.data.records import BadRowError
from acclimate.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL import Image as PillowImage

FILES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg")
STILL = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
"""Brands of the container of MP4 that are pictures."""


def is_video(data: bytes) -> bool:
    """Tell a video from a picture by its first bytes: MP4 and QuickTime, Matroska and WebM, AVI, MPEG."""
    if data[4:8] == b"ftyp":
        return data[8:12] not in STILL
    starts = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")
    return data.startswith(starts) or (data[:4] == b"RIFF" and data[8:12] == b"AVI ")


def normalise(data: bytes, config: ImagesConfig) -> Picture:
    """Make a picture or a video plain, as the settings say.

    Args:
        data: of the file.
        config: `image_side`, `max_megapixels`, `frames`.

    Raises:
        BadRowError: see `normalise_picture` and `normalise_video`.
        MissingExtraError: see `normalise_video`.
    """
    side, max_pixels = config.image_side, config.max_megapixels * 1_000_000
    if is_video(data):
        return normalise_video(data, side=side, max_pixels=max_pixels, frames=config.frames)
    return normalise_picture(data, side=side, max_pixels=max_pixels)


def normalise_video(data: bytes, *, side: int, max_pixels: int, frames: int) -> Picture:
    """Decode some frames of a video, upright and scaled down, as one file that `decode_frames` reads.

    Args:
        data: of the file.
        side: see `normalise_picture`.
        max_pixels: of a frame.
        frames: how many, in the middles of as many equal parts of its length; a shorter video has fewer.

    Raises:
        BadRowError: it is broken, has no picture, or frames that are too large, too small or strips.
        MissingExtraError: PyAV is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise MissingExtraError("Videos", "video")
    import av

    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise BadRowError("a video without a picture")
            stream = container.streams.video[0]
            check_shape(stream.codec_context.width, stream.codec_context.height, max_pixels)
            found = [_upright(frame, side) for frame in _drawn(container, stream, frames)]
    except BadRowError:
        raise
    except Exception as error:  # FFmpeg's errors are a class each
        raise BadRowError(f"broken video ({str(error).splitlines()[0][:120] or type(error).__name__})") from None
    if not found:
        raise BadRowError("a video without a frame")
    out = io.BytesIO()
    found[0].save(out, "WEBP", save_all=True, append_images=found[1:], quality=QUALITY, method=0, duration=100)
    return Picture(out.getvalue(), *found[0].size, ("frames of a video",))


def _drawn(container: Any, stream: Any, count: int) -> list[Any]:
    """The frames that are shown at the middles of `count` equal parts; where the length is not told, of all frames."""
    length = stream.duration or (None if container.duration is None else container.duration / 1e6 / stream.time_base)
    start = stream.start_time or 0
    if not length:
        every = list(container.decode(stream))
        return [every[int(len(every) * (part + 0.5) / count)] for part in range(min(count, len(every)))]
    found: dict[int, Any] = {}
    for part in range(count):
        wanted = start + int(length * (part + 0.5) / count)
        container.seek(wanted, stream=stream)
        shown = None
        for frame in container.decode(stream):
            if shown is not None and frame.pts is not None and frame.pts > wanted:
                break
            shown = frame
        if shown is not None:
            found.setdefault(part if shown.pts is None else shown.pts, shown)
    return list(found.values())


def _upright(frame: Any, side: int) -> PillowImage.Image:
    image: PillowImage.Image = frame.to_image()
    turned = getattr(frame, "rotation", 0)
    if turned:
        image = image.rotate(turned, expand=True)
    return scaled(image, side) if min(image.size) > side else image
